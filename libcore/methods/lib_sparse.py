"""LIB in a sparse gauge: its features mixed, in all node layers jointly, so that few edges are needed (METHOD.md 6).

to_fit, to_choose     = the inputs in two parts
for LIB, and LIB to centred logits:
    J, fhat           = Jacobians between leading features, and the features, on some of to_fit
    for several starts of the mixings T:
        T             = argmin sum_pairs w sum_ij log(1 + E'_ij / (epsilon sum E))      eq. 11, 12
        C T, T^-1 C⁺  = a candidate
the candidate that needs fewest edges for the model's own predictions on to_choose, LIB itself among them
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from typing import Literal

import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings, working_dtype
from libcore.gauge.choice import fewest_edges
from libcore.gauge.leading import leading_by_layer
from libcore.gauge.mixed_basis import mixed_bases
from libcore.gauge.optimisation import SparsityLoss, sparse_mixings
from libcore.gauge.sample import Leading, sampled_jacobians
from libcore.gauge.split import split_inputs
from libcore.gauge.starts import all_starts, number_of_starts
from libcore.layer_by_layer import last_basis
from libcore.methods import method
from libcore.methods.lib import lib_towards
from libcore.statistics import LayerStatistics, chain_statistics
from libcore.streams import unwatched

SEARCH = "descents and comparisons"
"""What a search is called, where a pass over data has its node layer's name."""

MOST = {"random_starts": 1000}
MOST_STEPS = 2**31 - 1
"""Of options; every start is a rotation that is held, and begun from."""


def refuse_odd(
    settings: FitSettings,
    *,
    choose_share: float,
    threshold: float,
    weights: list[float] | None,
    n_inputs: object,
    n_positions: object,
    max_features: object,
    steps: object,
    random_starts: object,
    **options: object,
) -> None:
    """Numbers out of range."""
    if not 0 < choose_share < 1:
        raise ValueError(f"choose_share={choose_share} of the inputs; expected a number between 0 and 1")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold} of the largest importance; expected a number from 0 to below 1")
    least = {"n_inputs": 1, "n_positions": 1, "max_features": 1, "steps": 1, "random_starts": 0}
    given = {"n_inputs": n_inputs, "n_positions": n_positions, "max_features": max_features}
    for name, value in (given | {"steps": steps, "random_starts": random_starts}).items():
        if not isinstance(value, int) or not least[name] <= value <= MOST.get(name, MOST_STEPS):
            most = MOST.get(name, MOST_STEPS)
            raise ValueError(f"{name}={value}; expected a whole number from {least[name]} to {most}")
    if weights is not None and not (weights and all(weight >= 0 for weight in weights) and sum(weights) > 0):
        raise ValueError(f"weights={weights}; expected numbers of at least 0, one for each layer pair, not all 0")


@method(
    "lib_sparse",
    label="sparse LIB",
    sorts_by="importance",
    seeded=True,
    place=14,
    check=refuse_odd,
    searches=True,
)
def fit_lib_sparse(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    gauge: Literal["lib", "whitened", "chosen", "free"] = "lib",
    centred_logits: bool = True,
    rotate_logits: bool = False,
    choose_share: float = 0.3,
    n_inputs: int = 400,
    n_positions: int = 4,
    threshold: float = 1e-5,
    max_features: int = 64,
    weights: list[float] | None = None,
    steps: int = 200,
    random_starts: int = 1,
) -> dict[str, Basis]:
    """The box. `statistics` are not used: they are of inputs that are kept back to choose on, too.

    Args:
        gauge: what mixings are tried: rotations of LIB's features, of whitened ones, `chosen`: the first, and the
            second from LIB's features alone, or any invertible ones of a bounded condition.
        centred_logits: LIB to logits less their mean over the classes, which no prediction depends on, is tried too.
        rotate_logits: the last node layer's features are rotated with the others.
        choose_share: of the inputs, kept back to choose among candidates on.
        n_inputs: that Jacobians are taken on, at most; fewer where the memory budget holds no more.
        n_positions: of the output, at most, that Jacobians are taken at.
        threshold: features are mixed whose importance is above this share of their node layer's largest.
        max_features: of a node layer, that are mixed at most.
        weights: of the layer pairs, in loss and choice; None for 1, and less for a last one of more edges.
        steps: of Adam, for each candidate.
        random_starts: beside LIB's own features.

    Raises ValueError for a number of weights other than that of layer pairs, and where a part of the inputs is empty.
    """
    quiet, last = replace(chain, on_chunk=unwatched), chain.node_layers[-1]
    if weights is not None and len(weights) != len(chain.sections):
        raise ValueError(f"weights={weights}: {len(weights)}; expected {len(chain.sections)}, one for each layer pair")
    parts = split_inputs(inputs, choose_share, settings.seed)
    moments = chain_statistics(quiet, parts.to_fit, settings.memory_budget)
    output = last_basis(quiet, moments, settings, working_dtype(chain, inputs))
    lib = lib_towards(output, quiet, parts.to_fit, moments, settings)
    references = [lib]
    if centred_logits and not chain.has_constant(last):
        references.append(lib_towards(centred(output), quiet, parts.to_fit, moments, settings))
    if weights is None:
        weights = weights_of(chain, leading_by_layer(lib, moments, threshold, max_features))
    sample, candidates = parts.to_fit[:n_inputs], list(references)
    ended_one = steps_of_search(chain, len(references), len(references) * number_of_starts(gauge, random_starts))
    for bases in references:
        leading = leading_by_layer(bases, moments, threshold, max_features)
        pairs = sampled_jacobians(quiet, sample, bases, leading, n_positions, settings)
        loss = SparsityLoss.of(chain.node_layers, pairs, weights)
        mixed = {layer: of for layer, of in leading.items() if len(of) > 0 and (layer != last or rotate_logits)}
        for start in all_starts(gauge, chain.node_layers, bases, mixed, random_starts, settings.seed):
            candidates.append(mixed_bases(bases, moments, mixed, sparse_mixings(loss, start, steps)))
            ended_one()
    return fewest_edges(quiet, candidates, sample, parts.to_choose, weights, settings, ended_one)


def steps_of_search(chain: Chain, n_references: int, n_descents: int) -> Callable[[], None]:
    """What is called after every descent and every comparison, and tells the chain's watcher how far they are."""
    done, in_all = count(1), n_references + 2 * n_descents
    return lambda: chain.on_chunk(SEARCH, next(done), in_all)


def weights_of(chain: Chain, leading: Leading) -> list[float]:
    """1 for each layer pair; less for the last one, so that its edges, to as many logits, do not outweigh all others.

    It then has the weight of as many edges as the others have on average.
    """
    n_edges = [float(len(leading[layer]) * len(leading[after])) for layer, after in pairwise(chain.node_layers)]
    *inner, last = n_edges
    share = sum(inner) / max(1, len(inner)) / max(1.0, last)
    return [1.0] * len(inner) + [min(1.0, share) if inner else 1.0]


def centred(logits: Basis) -> Basis:
    """The same less their mean: `to_basis = I - 1 1^T / d`."""
    centring = torch.eye(logits.d, dtype=torch.float64, device=logits.to_basis.device) - 1 / logits.d
    return Basis(centring, centring.clone(), logits.importance, has_constant=False)
