"""LIB with its Jacobians averaged along the path from zero, as integrated gradients are."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.methods import method
from libcore.methods.lib import fit_lib
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import LayerStatistics


def refuse_no_points(settings: FitSettings, *, n_points: int) -> None:
    """A rule has one point at least; raises ValueError."""
    Quadrature.of("gauss_legendre", n_points)


@method("lib_integrated", label="LIB, integrated", sorts_by="Λ", place=12, check=refuse_no_points)
def fit_lib_integrated(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    n_points: int = 10,
) -> dict[str, Basis]:
    """`method=lib` with `jacobian=path`, whatever rule the edges are integrated by.

    Args:
        n_points: of a Gauss-Legendre rule, where the edges' own rule has no path (`gradient`).
    """
    if settings.quadrature == GRADIENT:
        settings = replace(settings, quadrature=Quadrature.of("gauss_legendre", n_points))
    return fit_lib(chain, inputs, statistics, settings, jacobian="path")
