"""LIB in a sparse gauge: its features mixed, in all node layers jointly, so that few edges are needed (METHOD.md 6).

to_fit, to_choose     = the inputs in two parts
for LIB, and LIB to centred logits:
    J, fhat           = Jacobians between leading features, and the features, on some of to_fit
    for several starts of the mixings T:
        T             = argmin sum_pairs w sum_ij log(1 + E'_ij / (epsilon sum E))      eq. 12, 13
        C T, T^-1 C⁺  = a candidate
the candidate that needs fewest edges for the model's own predictions on to_choose, LIB itself among them
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings, working_dtype
from libcore.gauge.choice import fewest_edges
from libcore.gauge.leading import leading_features
from libcore.gauge.mixed_basis import mixed_basis
from libcore.gauge.mixing import Gauge
from libcore.gauge.optimisation import SparsityLoss, sparse_mixings
from libcore.gauge.sample import JacobianSample
from libcore.gauge.split import split_inputs
from libcore.gauge.starts import starts
from libcore.layer_by_layer import last_basis
from libcore.methods import method
from libcore.methods.lib import lib_towards
from libcore.statistics import LayerStatistics, chain_statistics
from libcore.streams import unwatched

LOGITS_WEIGHT = 0.1
"""Of the layer pair that ends at logits, whose many edges would outweigh all others."""

MOST_OUTPUTS = 256
"""Features of the last node layer that edges are counted to while mixings are sought."""


def refuse_odd(
    settings: FitSettings,
    *,
    choose_share: float = 0.3,
    n_inputs: int = 400,
    n_positions: int = 4,
    threshold: float = 1e-5,
    max_features: int = 64,
    weights: list[float] | None = None,
    steps: int = 200,
    random_starts: int = 1,
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
        if not isinstance(value, int) or value < least[name]:
            raise ValueError(f"{name}={value}; expected a whole number of at least {least[name]}")
    if weights is not None and not (weights and all(weight >= 0 for weight in weights) and sum(weights) > 0):
        raise ValueError(f"weights={weights}; expected numbers of at least 0, one for each layer pair, not all 0")


@dataclass(frozen=True)
class Search:
    """What candidates are made of: the fit part's inputs and moments, and the method's options as in
    `fit_lib_sparse`; random starts by gauge."""

    chain: Chain
    inputs: Tensor
    statistics: dict[str, LayerStatistics]
    settings: FitSettings
    weights: list[float]
    random_starts: dict[Gauge, int]
    n_positions: int
    threshold: float
    max_features: int
    steps: int
    rotate_logits: bool

    def candidates(self, bases: dict[str, Basis], inputs: Tensor) -> Iterator[dict[str, Basis]]:
        """These bases, mixed from every start; Jacobians on these inputs."""
        chain, last = self.chain, self.chain.node_layers[-1]
        leading = {
            layer: leading_features(
                bases[layer],
                self.statistics[layer],
                self.threshold,
                MOST_OUTPUTS if layer == last else self.max_features,
            )
            for layer in chain.node_layers
        }
        sample = JacobianSample(inputs, self.n_positions, leading, self.settings)
        loss = SparsityLoss.of(sample.of(chain, bases), self.weights)
        mixed = {
            layer: columns
            for layer, columns in leading.items()
            if len(columns) > 1 and (layer != last or self.rotate_logits)
        }
        for gauge, n_random in self.random_starts.items():
            for families in starts(gauge, chain.node_layers, bases, mixed, n_random, self.settings.seed):
                number_of = chain.node_layers.index
                found = sparse_mixings(
                    loss, {number_of(layer): family for layer, family in families.items()}, self.steps
                )
                yield bases | {
                    layer: mixed_basis(bases[layer], self.statistics[layer], columns, found[number_of(layer)])
                    for layer, columns in mixed.items()
                }


@method("lib_sparse", label="sparse LIB", sorts_by="importance", seeded=True, place=14, check=refuse_odd)
def fit_lib_sparse(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    gauge: Literal["chosen", "lib", "whitened", "free"] = "chosen",
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
        gauge: what mixings are tried: rotations of LIB's features, of whitened ones, any invertible ones of a bounded
            condition, or `chosen`: the first, and the second from LIB's features alone.
        centred_logits: LIB to logits less their mean over the classes, which no prediction depends on, is tried too.
        rotate_logits: the last node layer's features are rotated with the others.
        choose_share: of the inputs, kept back to choose among candidates on.
        n_inputs: that Jacobians are taken on, at most; fewer where the memory budget holds no more.
        n_positions: of the output, at most, that Jacobians are taken at.
        threshold: features are mixed whose importance is above this share of their node layer's largest.
        max_features: of a node layer, that are mixed at most.
        weights: of the layer pairs, in loss and choice; None for 1, and `LOGITS_WEIGHT` for one that ends at logits.
        steps: of Adam, for each candidate.
        random_starts: beside LIB's own features.

    Raises ValueError for a number of weights other than that of layer pairs, and where a part of the inputs is empty.
    """
    quiet, last = replace(chain, on_chunk=unwatched), chain.node_layers[-1]
    weights = weights_of(chain, weights)
    parts = split_inputs(inputs, choose_share, settings.seed)
    moments = chain_statistics(quiet, parts.to_fit, settings.memory_budget)
    output = last_basis(chain, moments, settings, working_dtype(chain, inputs))
    lib = lib_towards(output, chain, parts.to_fit, moments, settings)
    references = [lib]
    if centred_logits and not chain.has_constant(last):
        references.append(lib_towards(centred(output), quiet, parts.to_fit, moments, settings))
    starts_of: dict[Gauge, int] = {"lib": random_starts, "whitened": 0} if gauge == "chosen" else {gauge: random_starts}
    search = Search(
        quiet, parts.to_fit, moments, settings, weights, starts_of,
        n_positions, threshold, max_features, steps, rotate_logits,
    )  # fmt: skip
    sample = parts.to_fit[:n_inputs]
    candidates = [*references, *(found for bases in references for found in search.candidates(bases, sample))]
    return fewest_edges(quiet, candidates, sample, parts.to_choose, weights, settings)


def weights_of(chain: Chain, weights: list[float] | None) -> list[float]:
    """One for each layer pair; raises ValueError for another number of them."""
    n_pairs = len(chain.sections)
    if weights is None:
        ends_at_logits = not chain.has_constant(chain.node_layers[-1])
        return [1.0] * (n_pairs - ends_at_logits) + [LOGITS_WEIGHT] * ends_at_logits
    if len(weights) != n_pairs:
        raise ValueError(f"weights={weights}: {len(weights)} of them; expected {n_pairs}, one for each layer pair")
    return weights


def centred(logits: Basis) -> Basis:
    """The same less their mean: `to_basis = I - 1 1^T / d`."""
    centring = torch.eye(logits.d, dtype=torch.float64, device=logits.to_basis.device) - 1 / logits.d
    return Basis(centring, centring.clone(), logits.importance, has_constant=False)
