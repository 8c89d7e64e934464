"""Bases that need no interaction: every node layer by itself, from the moments of its activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis, identity_basis
from libcore.chain import Chain
from libcore.eigen import Truncation, descending_eigh, largest_of
from libcore.fit_settings import FitSettings, working_dtype
from libcore.principal_components import centred_maps, principal_components
from libcore.statistics import LayerStatistics

LayerBasis = Callable[[LayerStatistics, bool, Truncation, torch.dtype], Basis]
"""`statistics, has_constant, truncation, dtype of the activations -> basis` of one node layer."""


def fit_layer_by_layer(
    basis_of: Callable[[str], LayerBasis],
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
) -> dict[str, Basis]:
    """One basis per node layer by `basis_of(layer)`; the last one as `last_basis` says."""
    dtype = working_dtype(chain, inputs)
    bases = {
        layer: basis_of(layer)(statistics[layer], chain.has_constant(layer), settings.truncation, dtype)
        for layer in chain.node_layers[:-1]
    }
    return bases | {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}


def last_basis(
    chain: Chain, statistics: dict[str, LayerStatistics], settings: FitSettings, dtype: torch.dtype
) -> Basis:
    """METHOD.md 2.7: logits keep the neuron basis; a residual stream as last node layer takes its PCA basis."""
    layer = chain.node_layers[-1]
    if chain.has_constant(layer):
        return principal_basis(statistics[layer], True, settings.truncation, dtype)
    return identity_basis(statistics[layer].gram.diagonal().clone(), has_constant=False)


def principal_basis(
    statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype
) -> Basis:
    """`C = W`, `Cpinv = U^T Y^-1`, sorted by variance.   (METHOD.md eq. 2)"""
    components = principal_components(statistics, has_constant, truncation, dtype)
    importance = torch.cat([components.variance, components.dropped_variance])
    return Basis(components.project, components.restore, importance, has_constant)


def eigenbasis(
    gram: Float[Tensor, "d d"], statistics: LayerStatistics, truncation: Truncation, dtype: torch.dtype
) -> Basis:
    """Eigenvectors of a Gram of a layer that carries the constant coordinate, centred, by eigenvalue.

    What the Gram has of the constant coordinate is left out: it is a feature of its own.
    """
    eigenvalues, rotation = descending_eigh(gram[:-1, :-1], statistics.isolated)
    kept = eigenvalues > truncation.cut(largest_of(eigenvalues), dtype)
    return basis_of_directions(rotation[:, kept], statistics.mean[:-1], eigenvalues, has_constant=True)


def basis_of_directions(
    directions: Float[Tensor, "n k"], centre: Float[Tensor, " n"], importance: Float[Tensor, " m"], has_constant: bool
) -> Basis:
    """`fhat = (f - centre) @ directions` for orthonormal directions, the constant feature before them.

    A layer without the constant coordinate has nothing to subtract the centre through and is only rotated, as in PCA.
    """
    if not has_constant:
        return Basis(directions, directions.T.contiguous(), importance, has_constant=False)
    to_basis, from_basis = centred_maps(directions, directions.T, centre)
    return Basis(to_basis, from_basis, torch.cat([importance.new_ones(1), importance]), has_constant=True)
