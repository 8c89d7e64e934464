"""The random baseline: the principal directions turned by a random rotation, by variance."""

from __future__ import annotations

import hashlib
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation, fix_signs
from libcore.fit_settings import FitSettings
from libcore.layer_by_layer import basis_of_directions, fit_layer_by_layer
from libcore.methods import method, never
from libcore.principal_components import principal_components, variable_moments
from libcore.statistics import LayerStatistics


@method("random", label="random", sorts_by="variance", seeded=True, place=4, integrates=never, takes_jacobians=False)
def fit_random(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    seed: int | None = None,
) -> dict[str, Basis]:
    """A rotation that the seed and the layer's name decide.

    Args:
        seed: at least 0; None for that of the settings.
    """
    seed = settings.seed if seed is None else seed
    return fit_layer_by_layer(
        lambda layer: partial(random_basis, generator=generator_of(layer, seed)), chain, inputs, statistics, settings
    )


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


def random_rotation(n: int, generator: torch.Generator) -> Float[Tensor, "n n"]:
    """One of all, each as likely."""
    return haar_rotation(torch.randn(n, n, generator=generator, dtype=torch.float64))


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
