"""The baselines beside PCA: one basis per node layer from its moments alone, no interaction looked at.

svd     eigenvectors of the second moment `G + mu^T mu`: PCA without centring (METHOD.md 2.2)
neuron  the neurons themselves, centred, by variance
random  the principal directions turned by a random rotation, by variance
"""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.eigen import Truncation, descending_eigh, fix_signs, largest_of
from libcore.principal_components import centred_maps, principal_components, variable_moments
from libcore.statistics import LayerStatistics


def svd_basis(statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype) -> Basis:
    """Eigenvectors of the uncentred second moment, by second moment.

    The constant coordinate is kept apart as feature 0 and nothing is subtracted: on data far from zero the first
    direction is about that of the mean.
    """
    mean, gram = variable_moments(statistics, has_constant)
    moment, rotation = descending_eigh(gram + mean[:, None] * mean[None, :], statistics.isolated)
    kept = moment > truncation.cut(largest_of(moment), dtype)
    return basis_of_directions(rotation[:, kept], torch.zeros_like(mean), moment, has_constant)


def neuron_basis(statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype) -> Basis:
    """The neurons, centred through the constant coordinate, by variance; equal ones stay in the neurons' order.

    A neuron whose variance is at or below the cut is dropped; its mean stays in the constant's row of `from_basis`.
    """
    mean, gram = variable_moments(statistics, has_constant)
    variance, order = gram.diagonal().clamp(min=0.0).sort(descending=True, stable=True)
    kept = variance > truncation.cut(largest_of(variance), dtype)
    neurons = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    return basis_of_directions(neurons[:, order[kept]], mean, variance, has_constant)


def random_basis(
    statistics: LayerStatistics,
    has_constant: bool,
    truncation: Truncation,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Basis:
    """Orthonormal directions drawn uniformly (Haar) in the span of the kept principal ones, by variance.

    Isolated coordinates stay directions of their own.
    """
    mean, gram = variable_moments(statistics, has_constant)
    components = principal_components(statistics, has_constant, truncation, dtype)
    kept = components.project[: len(mean), int(has_constant) :]
    isolated = torch.zeros(kept.shape[1], dtype=torch.bool, device=kept.device)
    isolated[list(components.isolated)] = True
    principal = kept[:, ~isolated]
    normal = torch.randn(principal.shape, generator=generator, dtype=torch.float64).to(mean.device)
    # Drawn in the layer's coordinates, the directions do not depend on which eigenvectors stand for equal variances.
    directions = torch.cat([principal @ haar_rotation(principal.T @ normal), kept[:, isolated]], dim=1)
    variance, order = (directions * (gram @ directions)).sum(0).sort(descending=True, stable=True)
    importance = torch.cat([variance, components.dropped_variance])
    return basis_of_directions(fix_signs(directions[:, order]), mean, importance, has_constant)


def haar_rotation(normal: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A uniformly distributed orthogonal matrix from independent standard normal entries.

    The Q of QR, made unique by a positive diagonal of R: without that the distribution is LAPACK's (Mezzadri 2007).
    """
    q, r = torch.linalg.qr(normal)
    return torch.where(r.diagonal() < 0, -q, q)


def generator_of(layer: str, seed: int) -> torch.Generator:
    """Random numbers of one node layer: they depend on its name and the seed, not on the other layers analysed."""
    digest = hashlib.sha256(f"{seed}/{layer}".encode()).digest()
    # Seven bytes: well below the largest seed that torch takes.
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def basis_of_directions(
    directions: Float[Tensor, "n k"], centre: Float[Tensor, " n"], importance: Float[Tensor, " m"], has_constant: bool
) -> Basis:
    """`fhat = (f - centre) @ directions` for orthonormal directions, the constant feature before them.

    A layer without the constant coordinate has nothing to subtract the centre through and is only rotated, as in PCA.
    """
    if not has_constant:
        return Basis(directions, directions.T.contiguous(), importance, has_constant=False)
    to_basis, from_basis = centred_maps(directions, centre)
    return Basis(to_basis, from_basis, torch.cat([importance.new_ones(1), importance]), has_constant=True)
