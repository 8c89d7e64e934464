"""The PCA baseline: principal directions of every node layer, by variance (METHOD.md 2.2)."""

from __future__ import annotations

from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.layer_by_layer import fit_layer_by_layer, principal_basis
from libcore.methods import method, never
from libcore.statistics import LayerStatistics


@method("pca", label="PCA", sorts_by="variance", place=1, integrates=never, takes_jacobians=False)
def fit_pca(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """`C = W`, `Cpinv = U^T Y^-1`."""
    return fit_layer_by_layer(lambda layer: principal_basis, chain, inputs, statistics, settings)
