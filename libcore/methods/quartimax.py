"""The quartimax baseline: PCA's leading components rotated so that each coordinate has few of them."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.methods import method, never
from libcore.rotated_components import fit_rotated_components, orthomax, refuse_share
from libcore.statistics import LayerStatistics


@method(
    "quartimax",
    label="quartimax",
    sorts_by="variance",
    place=10,
    check=refuse_share,
    integrates=never,
    takes_jacobians=False,
)
def fit_quartimax(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    share: float = 0.99,
) -> dict[str, Basis]:
    """The quartimax criterion on the loadings: what every component, of variance 1, adds to every coordinate.

    Args:
        share: of the variance, which the components that are rotated hold.
    """
    rotation_of = partial(orthomax, gamma=0.0)
    return fit_rotated_components(chain, inputs, statistics, settings, share, lambda index: rotation_of)
