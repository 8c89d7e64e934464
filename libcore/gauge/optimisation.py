"""Mixings of all node layers' features chosen jointly, for edges that are few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.gauge.jacobians import PairJacobians
from libcore.gauge.mixing import Mixing, Mixings

RATE = 0.03
"""Adam's, until it falls to `LAST_RATE` of it."""

FALLING_SHARE = 0.3
"""Of the steps, at the end, over which the rate falls."""

LAST_RATE = 0.05
FIRST_EPSILON, LAST_EPSILON = 1e-2, 1e-4
"""Which share of all interaction counts as an edge: first a large one, so that no start is too far off."""


@dataclass(frozen=True)
class SparsityLoss:
    """`sum_pairs w sum_ij log(1 + E_ij / (epsilon sum E_0))`, `E_0` the edges without mixing.

    Attributes:
        node_layers: first to last.
        pairs: Jacobians of every layer pair.
        weights: `w`, by pair.
        totals: `sum E_0`, by pair.
    """

    node_layers: Sequence[str]
    pairs: Sequence[PairJacobians]
    weights: Sequence[float]
    totals: Sequence[float]

    @classmethod
    def of(cls, node_layers: Sequence[str], pairs: Sequence[PairJacobians], weights: Sequence[float]) -> SparsityLoss:
        """With the totals of these Jacobians."""
        least = torch.finfo(torch.float64).tiny  # where nothing interacts
        return cls(node_layers, pairs, weights, [max(pair.edges().sum().item(), least) for pair in pairs])

    def __call__(self, mixings: Mapping[str, Mixing], epsilon: float) -> Float[Tensor, ""]:
        """Of mixings by node layer; layers without keep their features."""
        of_pairs = zip(pairwise(self.node_layers), self.pairs, self.weights, self.totals, strict=True)
        losses = [
            weight * torch.log1p(pair.edges(mixings.get(layer), mixings.get(next_layer)) / (epsilon * total)).sum()
            for (layer, next_layer), pair, weight, total in of_pairs
        ]
        return torch.stack(losses).sum()


def sparse_mixings(loss: SparsityLoss, mixings: Mapping[str, Mixings], n_steps: int) -> dict[str, Mixing]:
    """Adam from where the mixings, by node layer, start; the mixings at the end, detached.

    The loss's epsilon falls geometrically while the rate does not, and stays at its last value while that falls.
    """
    parameters = [parameter for family in mixings.values() for parameter in family.parameters]
    if parameters:
        optimiser = torch.optim.Adam(parameters, lr=RATE)
        with torch.enable_grad():
            for step in range(n_steps):
                optimiser.param_groups[0]["lr"] = rate_at(step / n_steps)
                optimiser.zero_grad()
                loss({layer: family() for layer, family in mixings.items()}, epsilon_at(step / n_steps)).backward()
                optimiser.step()
    with torch.no_grad():
        return {layer: family() for layer, family in mixings.items()}


def rate_at(progress: float) -> float:
    """Adam's rate after that share of the steps."""
    falling = max(0.0, (progress - (1 - FALLING_SHARE)) / FALLING_SHARE)
    return RATE * LAST_RATE**falling


def epsilon_at(progress: float) -> float:
    """The loss's epsilon after that share of the steps."""
    return FIRST_EPSILON * (LAST_EPSILON / FIRST_EPSILON) ** min(1.0, progress / (1 - FALLING_SHARE))
