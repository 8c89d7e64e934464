"""Rotations of a node layer's leading principal components, whitened: what ICA, varimax and quartimax choose among."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis, in_order
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.fit_settings import FitSettings, working_dtype
from libcore.layer_by_layer import last_basis
from libcore.principal_components import principal_components
from libcore.statistics import LayerStatistics

RotationOf = Callable[[Float[Tensor, "d k"], Float[Tensor, "k d"]], Float[Tensor, "k k"]]
"""`(to whitened components, back from them) -> orthogonal matrix`; what is centred through the constant included."""


def fit_rotated_components(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    share: float,
    rotation_of: Callable[[int], RotationOf],
) -> dict[str, Basis]:
    """Every node layer by itself, by its number; the last one keeps its own basis."""
    dtype = working_dtype(chain, inputs)
    bases = {
        layer: rotated_components(statistics[layer], settings.truncation, dtype, share, rotation_of(index))
        for index, layer in enumerate(chain.node_layers[:-1])
    }
    return bases | {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}


def rotated_components(
    statistics: LayerStatistics, truncation: Truncation, dtype: torch.dtype, share: float, rotation_of: RotationOf
) -> Basis:
    """The fewest components that hold `share` of the variance, rotated; the others as they are, behind them.

    All have variance 1. They are sorted by the variance of the activation that is theirs, the squared norm of their row
    of `from_basis`; isolated coordinates stay features of their own.
    """
    components = principal_components(statistics, True, truncation, dtype)
    whiten, unwhiten = components.whitened()
    leading = leading_components(components.variance[1:], share, components.isolated)
    rotated = 1 + torch.nonzero(leading).flatten()
    if len(rotated) > 1:
        rotation = rotation_of(whiten[:, rotated], unwhiten[rotated])
        whiten[:, rotated] = whiten[:, rotated] @ rotation
        unwhiten[rotated] = rotation.T @ unwhiten[rotated]
    variance = unwhiten[1:].square().sum(1)
    # Those that were rotated first: of the others, not one holds more than any component that was.
    order = torch.argsort(torch.where(leading, variance + 2 * variance.sum(), variance), descending=True, stable=True)
    importance = torch.cat([variance.new_ones(1), variance, components.dropped_variance])
    return in_order(Basis(whiten, unwhiten, importance, has_constant=True), order)


def leading_components(variance: Float[Tensor, " k"], share: float, isolated: tuple[int, ...]) -> Tensor:
    """Which of the components, in descending order, are rotated."""
    before = (variance.cumsum(0) - variance) / variance.sum()
    leading = before < share
    leading[list(isolated)] = False
    return leading


def refuse_share(settings: object, *, share: float, **options: object) -> None:
    """The check of methods that have this option."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share} of the variance; expected a number above 0 and at most 1")


def orthomax(
    to_components: Float[Tensor, "d k"],
    from_components: Float[Tensor, "k d"],
    gamma: float,
    steps: int = 500,
    tolerance: float = 1e-10,
) -> Float[Tensor, "k k"]:
    """The rotation `T` that maximises `sum (A T)^4 - gamma / d sum_k (sum_d (A T)^2)^2`: varimax at 1, quartimax at 0.

    The loadings `A` are what the components add to every coordinate but the constant.

    Kaiser's criterion without row normalisation, by repeated projection of its gradient onto the orthogonal group; it
    stops once the criterion's gradient has grown by less than the tolerance, relative, in a step.
    """
    loadings = from_components[:, :-1].T
    rotation = torch.eye(loadings.shape[1], dtype=loadings.dtype, device=loadings.device)
    before = 0.0
    for _ in range(steps):
        rotated = loadings @ rotation
        gradient = loadings.T @ (rotated**3 - rotated * (rotated.square().sum(0) * gamma / len(loadings)))
        left, singular, right = torch.linalg.svd(gradient)
        rotation, size = left @ right, singular.sum().item()
        if size <= before * (1 + tolerance):
            break
        before = size
    return rotation
