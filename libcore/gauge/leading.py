"""The leading features of a node layer: those that a gauge mixes, and those whose edges it is chosen for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.basis import Basis
from libcore.eigen import isolated_columns
from libcore.statistics import LayerStatistics

MOST_OUTPUTS = 256
"""Features of the last node layer, where one may be a word of a vocabulary."""


def leading_by_layer(
    bases: Mapping[str, Basis], statistics: Mapping[str, LayerStatistics], threshold: float, most: int
) -> dict[str, Int[Tensor, " leading"]]:
    """`leading_features` of every node layer, of the last one at most `MOST_OUTPUTS`."""
    *_, last = bases
    return {
        layer: leading_features(basis, statistics[layer], threshold, MOST_OUTPUTS if layer == last else most)
        for layer, basis in bases.items()
    }


def leading_features(basis: Basis, statistics: LayerStatistics, threshold: float, most: int) -> Int[Tensor, " leading"]:
    """Numbers of the features whose importance is above `threshold` times the largest, at most so many.

    The constant feature and isolated coordinates, which are never mixed with others, are not among them.
    """
    first = int(basis.has_constant)
    importance = basis.importance[first : basis.n_features].clone()
    if statistics.isolated:
        alone = isolated_columns(basis.to_basis[:, first:], statistics.isolated)
        importance[list(alone)] = 0.0
    if importance.numel() == 0:
        return torch.zeros(0, dtype=torch.long, device=importance.device)
    largest = importance.argsort(descending=True, stable=True)[:most]
    return first + largest[importance[largest] > threshold * importance.max()].sort().values
