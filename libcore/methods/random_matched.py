"""The control for LIB's alignment: LIB's own span, whitened as LIB's is, turned by a random rotation."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from libcore.basis import Basis, in_order
from libcore.chain import Chain
from libcore.eigen import isolated_columns
from libcore.fit_settings import FitSettings
from libcore.methods import method, never
from libcore.methods.lib import fit_lib
from libcore.methods.random import generator_of, random_rotation
from libcore.statistics import LayerStatistics


@method(
    "random_matched",
    label="random, matched",
    sorts_by="variance",
    place=13,
    seeded=True,
    integrates=never,
    takes_jacobians=False,
)
def fit_random_matched(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    seed: int | None = None,
) -> dict[str, Basis]:
    """As many features as LIB, of the same span, each of variance 1, in directions that the seed decides.

    Args:
        seed: at least 0; None for that of the settings.
    """
    seed = settings.seed if seed is None else seed
    bases = fit_lib(chain, inputs, statistics, settings)
    return {
        layer: turned(basis, statistics[layer], generator_of(layer, seed)) if layer != chain.node_layers[-1] else basis
        for layer, basis in bases.items()
    }


def turned(basis: Basis, statistics: LayerStatistics, generator: Generator) -> Basis:
    """Features of unit variance, turned among themselves but for isolated coordinates, by the variance they explain."""
    importance = basis.importance[: basis.n_features]
    deviation = torch.where(importance > 0, importance, 1.0).sqrt()  # Λ is LIB's variance, and the constant's square
    to_basis, from_basis = basis.to_basis / deviation, basis.from_basis * deviation[:, None]
    own = 1 + torch.tensor(isolated_columns(to_basis[:-1, 1:], statistics.isolated), dtype=torch.long)
    free = torch.ones(basis.n_features, dtype=torch.bool, device=to_basis.device)
    free[0], free[own.to(free.device)] = False, False
    rotation = random_rotation(int(free.sum()), generator).to(to_basis.device)
    to_basis[:, free], from_basis[free] = to_basis[:, free] @ rotation, rotation.T @ from_basis[free]
    explained = from_basis[1:].square().sum(1)
    found = Basis(to_basis, from_basis, torch.cat([explained.new_ones(1), explained]), has_constant=True)
    return in_order(found, explained.argsort(descending=True, stable=True))
