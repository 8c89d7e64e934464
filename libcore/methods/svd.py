"""The SVD baseline: PCA without centring (METHOD.md 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation, descending_eigh, largest_of
from libcore.fit_settings import FitSettings
from libcore.layer_by_layer import basis_of_directions, fit_layer_by_layer
from libcore.methods import method, never
from libcore.principal_components import variable_moments
from libcore.statistics import LayerStatistics


@method("svd", label="SVD", sorts_by="second moment", place=2, integrates=never, takes_jacobians=False)
def fit_svd(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """Eigenvectors of the second moment `G + mu^T mu`."""
    return fit_layer_by_layer(lambda layer: svd_basis, chain, inputs, statistics, settings)


def svd_basis(statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype) -> Basis:
    """Eigenvectors of the uncentred second moment, by second moment.

    The constant coordinate is kept apart as feature 0 and nothing is subtracted: on data far from zero the first
    direction is about that of the mean.
    """
    mean, gram = variable_moments(statistics, has_constant)
    moment, rotation = descending_eigh(gram + mean[:, None] * mean[None, :], statistics.isolated)
    kept = moment > truncation.cut(largest_of(moment), dtype)
    return basis_of_directions(rotation[:, kept], torch.zeros_like(mean), moment, has_constant)
