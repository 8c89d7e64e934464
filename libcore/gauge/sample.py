"""Jacobians of all layer pairs on a sample of inputs and output positions that the memory budget holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings, working_dtype
from libcore.gauge.jacobians import PairJacobians, pair_jacobians

ARRAYS_AT_ONCE = 3
"""Of the Jacobians' size, while a loss of them is differentiated: themselves and what its gradient needs. The peak
is then 0.7 of the budget, with 2 all of it (`tests/libcore/test_peak_memory.py`)."""

Leading = Mapping[str, Int[Tensor, " leading"]]
"""By node layer, the numbers of the features that Jacobians are taken between."""


def sampled_jacobians(
    chain: Chain, inputs: Tensor, bases: Mapping[str, Basis], leading: Leading, n_positions: int, settings: FitSettings
) -> list[PairJacobians]:
    """Of every layer pair, first to last, along the settings' integration rule.

    On the first of these inputs, as many as a pair's share of half of the memory budget holds the Jacobians of, with
    what a loss of them needs beside, but on at least one; and at no more than `n_positions` output positions of each
    pair, drawn by the settings' seed where there are more.
    """
    dtype, generator = working_dtype(chain, inputs), torch.Generator().manual_seed(settings.seed)
    streams = chain.streams(inputs, settings.memory_budget // 2)
    share = settings.memory_budget // 2 // len(chain.sections)
    pairs, of_layers = [], positions_of(chain, inputs)
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        drawn = torch.randperm(of_layers[index + 1], generator=generator)[:n_positions].sort().values.tolist()
        of_pair = partial(
            pair_jacobians,
            chain.sections[index],
            bases=(bases[layer].to(dtype=dtype), bases[next_layer].to(dtype=dtype)),
            leading=(leading[layer], leading[next_layer]),
            quadrature=settings.quadrature,
            positions=drawn,
        )
        # How many input positions an output depends on is seen from the first input.
        bytes_each = ARRAYS_AT_ONCE * of_pair(streams[index].first(1)).nbytes
        affordable = max(1, share // max(1, bytes_each))
        pairs.append(of_pair(streams[index].first(min(len(inputs), affordable))))
    return pairs


def positions_of(chain: Chain, inputs: Tensor) -> list[int]:
    """How many each node layer has."""
    with torch.no_grad():
        return [activation.shape[1] for activation in chain.activations(inputs[:1])]
