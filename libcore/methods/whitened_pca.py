"""The whitened PCA baseline: LIB's first two steps, without the alignment (METHOD.md eq. 1-3)."""

from __future__ import annotations

import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.fit_settings import FitSettings
from libcore.layer_by_layer import fit_layer_by_layer
from libcore.methods import method, never
from libcore.principal_components import principal_components
from libcore.statistics import LayerStatistics


@method("whitened_pca", label="whitened PCA", sorts_by="variance", place=5, integrates=never, takes_jacobians=False)
def fit_whitened_pca(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """`C = R`, `Cpinv = Rpinv`: PCA's directions, every feature with variance 1.

    Features are PCA's, and so is what is left when some are ablated; only the strengths of the edges that end at them
    differ, by their scale.
    """
    return fit_layer_by_layer(lambda layer: whitened_basis, chain, inputs, statistics, settings)


def whitened_basis(
    statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype
) -> Basis:
    """Principal components divided by their deviation, sorted by their variance before that."""
    components = principal_components(statistics, has_constant, truncation, dtype)
    whiten, unwhiten = components.whitened()
    return Basis(whiten, unwhiten, torch.cat([components.variance, components.dropped_variance]), has_constant)
