"""Principal components of a node layer, and their whitening (METHOD.md eq. 2-3); as a method, the PCA baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.eigen import Truncation, descending_eigh, largest_of
from libcore.statistics import LayerStatistics


@dataclass(frozen=True)
class PrincipalComponents:
    """`W = Y U` and its pseudoinverse, the constant direction first where there is one.

    Attributes:
        project: `W`, `[d, k]`: centres (through the constant coordinate) and rotates.
        restore: `U^T Y^-1`, `[k, d]`.
        variance: `D`, `[k]`, descending; 1 for the constant direction.
        dropped_variance: variances of the directions below the cut.
    """

    project: Float[Tensor, "d k"]
    restore: Float[Tensor, "k d"]
    variance: Float[Tensor, " k"]
    dropped_variance: Float[Tensor, " dropped"]
    has_constant: bool

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
    if not has_constant:
        variance, rotation = descending_eigh(statistics.gram)
        kept = variance > truncation.cut(largest_of(variance), dtype)
        return PrincipalComponents(rotation[:, kept], rotation[:, kept].T, variance[kept], variance[~kept], False)

    mean, gram = statistics.mean[:-1], statistics.gram[:-1, :-1]
    variance, rotation = descending_eigh(gram)
    kept = variance > truncation.cut(largest_of(variance), dtype)
    rotation = rotation[:, kept]
    d, k = len(statistics.mean), int(kept.sum())
    project = statistics.mean.new_zeros(d, k + 1)
    project[-1, 0] = 1.0
    project[:-1, 1:] = rotation
    project[-1, 1:] = -mean @ rotation
    restore = statistics.mean.new_zeros(k + 1, d)
    restore[0] = statistics.mean
    restore[1:, :-1] = rotation.T
    one = variance.new_ones(1)
    return PrincipalComponents(project, restore, torch.cat([one, variance[kept]]), variance[~kept], True)


def pca_basis(statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype) -> Basis:
    """The PCA baseline: `C = W`, `Cpinv = U^T Y^-1`, sorted by variance."""
    components = principal_components(statistics, has_constant, truncation, dtype)
    importance = torch.cat([components.variance, components.dropped_variance])
    return Basis(components.project, components.restore, importance, has_constant)
