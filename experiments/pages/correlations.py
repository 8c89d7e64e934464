"""Which features of two bases of the same activations are the same: correlations in closed form, without data."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.graph import InteractionGraph
from libcore.stability.joint_covariance import JointCovariance
from libcore.statistics import LayerStatistics

LEAST_CORRELATION = 0.1
"""In magnitude; weaker ones are not listed."""
STATISTICS_TOLERANCE = 1e-6
"""Relative: the moments of one model on the same data differ by round-off only."""


def feature_correlations(
    statistics: LayerStatistics, left: Basis, right: Basis
) -> Float[Tensor, "left_feature right_feature"]:
    """Pearson correlation over the data of every feature of one basis with every one of the other.

    A feature without variance correlates with nothing: zero. Raises ValueError for a basis of other activations.
    """
    return JointCovariance.of_bases(statistics.gram, left, right).correlations()


def strongest_matches(correlation: Float[Tensor, "feature other"], n: int) -> list[list[tuple[int, float]]]:
    """Of every feature, the `n` others that it correlates with most: number and correlation, the strongest first."""
    order = correlation.abs().topk(min(n, correlation.shape[1]), dim=1).indices
    return [
        [(index, round(row[index].item(), 3)) for index in of_row if abs(row[index].item()) >= LEAST_CORRELATION]
        for row, of_row in zip(correlation, order.tolist(), strict=True)
    ]


def check_same_activations(left: InteractionGraph, right: InteractionGraph) -> None:
    """Raises ValueError, in one line, for graphs of other node layers or of other activations."""
    if left.node_layers != right.node_layers:
        raise ValueError(f"node layers {list(left.node_layers)} and {list(right.node_layers)}; expected the same")
    for layer in left.node_layers:
        for name in ("mean", "gram"):
            one, other = (getattr(graph.statistics[layer], name).double() for graph in (left, right))
            if one.shape != other.shape:
                raise ValueError(f"{layer}: {len(one)} and {len(other)} coordinates; expected the same activations")
            off = (one - other).abs().max() / one.abs().max().clamp(min=torch.finfo(one.dtype).tiny)
            if not off <= STATISTICS_TOLERANCE:
                raise ValueError(
                    f"{layer}: {name}s of the activations are {off:.1e} apart; expected one model on the same examples"
                )
