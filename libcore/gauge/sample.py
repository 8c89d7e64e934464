"""Jacobians of all layer pairs on a sample of inputs and output positions that the memory budget holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class JacobianSample:
    """What is looked at.

    Attributes:
        inputs: at most; fewer where Jacobians on so many would take more than half of the memory budget.
        positions: of the output, in each layer pair, at most; drawn at random where there are more.
        leading: by node layer, the features whose Jacobians are taken.
        settings: integration rule, memory budget, and the seed by which positions are drawn.
    """

    inputs: Tensor
    positions: int
    leading: Mapping[str, Int[Tensor, " leading"]]
    settings: FitSettings

    def of(self, chain: Chain, bases: Mapping[str, Basis]) -> list[PairJacobians]:
        """Of every layer pair, first to last, between features of these bases."""
        settings, dtype = self.settings, working_dtype(chain, self.inputs)
        generator = torch.Generator().manual_seed(settings.seed)
        inputs = self.inputs[: self.affordable(chain)]
        streams = chain.streams(inputs, settings.memory_budget // 2)
        with torch.no_grad():
            n_positions = [activation.shape[1] for activation in chain.activations(inputs[:1])]
        pairs = []
        for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
            drawn = torch.randperm(n_positions[index + 1], generator=generator)[: self.positions].sort().values
            of_pair = (bases[layer].to(dtype=dtype), bases[next_layer].to(dtype=dtype))
            leading = (self.leading[layer], self.leading[next_layer])
            section, stream = chain.sections[index], streams[index]
            pairs.append(pair_jacobians(section, stream, of_pair, leading, settings.quadrature, drawn.tolist()))
        return pairs

    def affordable(self, chain: Chain) -> int:
        """How many inputs half of the memory budget holds the Jacobians of, at least one."""
        with torch.no_grad():
            n_positions = [activation.shape[1] for activation in chain.activations(self.inputs[:1])]
        values = 0
        for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
            n_in, n_out = len(self.leading[layer]), len(self.leading[next_layer])
            positions = min(self.positions, n_positions[index + 1])
            values += positions * (n_out + 1) * min(n_positions[index], max(1, n_in)) * n_in
        most = self.settings.memory_budget // 2 // (8 * ARRAYS_AT_ONCE * max(1, values))
        return max(1, min(len(self.inputs), most))
