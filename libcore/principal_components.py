"""Principal components of a node layer, and their whitening (METHOD.md eq. 2-3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.eigen import Truncation, descending_eigh, isolated_columns, largest_of
from libcore.statistics import LayerStatistics


@dataclass(frozen=True)
class PrincipalComponents:
    """`W = Y U` and its pseudoinverse, the constant direction first where there is one.

    Attributes:
        project: `W`, `[d, k]`: centres (through the constant coordinate) and rotates.
        restore: `U^T Y^-1`, `[k, d]`.
        variance: `D`, `[k]`, descending; 1 for the constant direction.
        dropped_variance: variances of the directions below the cut.
        isolated: which directions, the constant one not counted, are isolated coordinates of the layer.
    """

    project: Float[Tensor, "d k"]
    restore: Float[Tensor, "k d"]
    variance: Float[Tensor, " k"]
    dropped_variance: Float[Tensor, " dropped"]
    has_constant: bool
    isolated: tuple[int, ...] = ()

    def whitened(self) -> tuple[Float[Tensor, "d k"], Float[Tensor, "k d"]]:
        """`R = W D^(-1/2)` and `Rpinv = D^(1/2) U^T Y^-1`.   (eq. 3)"""
        deviation = self.variance.sqrt()
        return self.project / deviation, deviation[:, None] * self.restore


def principal_components(
    statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype
) -> PrincipalComponents:
    """METHOD.md eq. 2. Centring makes the constant direction orthogonal to all others, so it is kept apart.

    Args:
        dtype: what the activations were computed in; sets the default cut.
    """
    mean, gram = variable_moments(statistics, has_constant)
    variance, rotation = descending_eigh(gram, statistics.isolated)
    kept = variance > truncation.cut(largest_of(variance), dtype)
    rotation = rotation[:, kept]
    if not has_constant:
        return PrincipalComponents(rotation, rotation.T, variance[kept], variance[~kept], False)
    project, restore = centred_maps(rotation, rotation.T, mean)
    one = variance.new_ones(1)
    isolated = isolated_columns(rotation, statistics.isolated)
    return PrincipalComponents(project, restore, torch.cat([one, variance[kept]]), variance[~kept], True, isolated)


def variable_moments(
    statistics: LayerStatistics, has_constant: bool
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Mean and centred Gram of all coordinates but the constant one."""
    if not has_constant:
        return statistics.mean, statistics.gram
    return statistics.mean[:-1], statistics.gram[:-1, :-1]


def centred_maps(
    directions: Float[Tensor, "n k"], back: Float[Tensor, "k n"], centre: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n_and_constant k_and_constant"], Float[Tensor, "k_and_constant n_and_constant"]]:
    """`f -> (f - centre) @ directions` and `fhat -> centre + fhat @ back`; the constant feature first.

    The centre is subtracted through the constant coordinate, which is the last.
    """
    n, k = directions.shape
    to_basis, from_basis = directions.new_zeros(n + 1, k + 1), directions.new_zeros(k + 1, n + 1)
    to_basis[:-1, 1:] = directions
    to_basis[-1, 1:] = -centre @ directions
    from_basis[1:, :-1] = back
    from_basis[0, :-1] = centre
    to_basis[-1, 0] = from_basis[0, -1] = 1.0
    return to_basis, from_basis
