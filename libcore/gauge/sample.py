"""Jacobians of all layer pairs on a sample of inputs and output positions that the memory budget holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings, working_dtype
from libcore.gauge.jacobians import PairJacobians, pair_jacobians

ARRAYS_AT_ONCE = 4
"""Of the Jacobians' size, while a loss of them is differentiated: themselves and what its gradient needs."""

Leading = Mapping[str, Int[Tensor, " leading"]]
"""By node layer, the numbers of the features that Jacobians are taken between."""


def sampled_jacobians(
    chain: Chain, inputs: Tensor, bases: Mapping[str, Basis], leading: Leading, n_positions: int, settings: FitSettings
) -> list[PairJacobians]:
    """Of every layer pair, first to last, along the settings' integration rule.

    On the first of these inputs, as many as half of the memory budget holds the Jacobians of, and at no more than
    `n_positions` output positions of each pair, drawn by the settings' seed where there are more.
    """
    dtype, generator = working_dtype(chain, inputs), torch.Generator().manual_seed(settings.seed)
    inputs = inputs[: affordable_inputs(chain, inputs, leading, n_positions, settings.memory_budget // 2)]
    streams = chain.streams(inputs, settings.memory_budget // 2)
    pairs = []
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        n_out = positions_of(chain, inputs)[index + 1]
        drawn = torch.randperm(n_out, generator=generator)[:n_positions].sort().values.tolist()
        in_dtype = (bases[layer].to(dtype=dtype), bases[next_layer].to(dtype=dtype))
        between = (leading[layer], leading[next_layer])
        pairs.append(
            pair_jacobians(chain.sections[index], streams[index], in_dtype, between, settings.quadrature, drawn)
        )
    return pairs


def affordable_inputs(chain: Chain, inputs: Tensor, leading: Leading, n_positions: int, budget: int) -> int:
    """How many inputs so many bytes hold the Jacobians of, with what a loss of them needs beside; at least one."""
    positions, values = positions_of(chain, inputs), 0
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        n_in, n_out = len(leading[layer]), len(leading[next_layer])
        n_read = min(positions[index], max(1, n_in))  # more are written as so many (`PairJacobians.compressed`)
        values += min(n_positions, positions[index + 1]) * n_read * n_in * (n_out + 1)
    return max(1, min(len(inputs), budget // (8 * ARRAYS_AT_ONCE * max(1, values))))


def positions_of(chain: Chain, inputs: Tensor) -> list[int]:
    """How many each node layer has."""
    with torch.no_grad():
        return [activation.shape[1] for activation in chain.activations(inputs[:1])]
