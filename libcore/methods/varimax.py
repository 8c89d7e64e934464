"""The varimax baseline: PCA's leading components rotated so that each of them is in few coordinates."""

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
    "varimax",
    label="varimax",
    sorts_by="variance",
    place=9,
    check=refuse_share,
    integrates=never,
    takes_jacobians=False,
)
def fit_varimax(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    share: float = 0.99,
) -> dict[str, Basis]:
    """The varimax criterion on the loadings: what every component, of variance 1, adds to every coordinate.

    Args:
        share: of the variance, which the components that are rotated hold.
    """
    rotation_of = partial(orthomax, gamma=1.0)
    return fit_rotated_components(chain, inputs, statistics, settings, share, lambda index: rotation_of)
