"""The leading features of a node layer: those that a gauge mixes, and those whose edges it is chosen for."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.basis import Basis
from libcore.eigen import isolated_columns
from libcore.statistics import LayerStatistics


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
