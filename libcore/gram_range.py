"""The range of a Gram matrix: what of a direction the data vary along, without all of its eigenvectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.eigen import Truncation, descending_eigh

POWER_STEPS = 30
"""For the largest eigenvalue, which only sets the scale of a cut."""
INVERSE_STEPS = 4
"""Of inverse iteration: each multiplies what is not null by the ratio of the shift to its eigenvalue."""
FIRST_GUESS = 16
"""Null directions that are looked for at first where the number of samples tells of none."""


def projected_onto_range(
    columns: Float[Tensor, "d k"],
    gram: Float[Tensor, "d d"],
    count: int,
    truncation: Truncation,
    dtype: torch.dtype,
) -> Float[Tensor, "d k"]:
    """`P columns`, `P` the projection onto the eigenvectors of the Gram above the cut (METHOD.md eq. 6b), float64.

    Args:
        columns: any directions.
        gram: positive semi-definite, of `count` samples, centred.
        count: samples; the rank is smaller.
        truncation: which eigenvalues count as zero.
        dtype: what the samples were computed in.

    A Gram without small eigenvalues costs one Cholesky decomposition. Otherwise the smaller of range and null space is
    found by iteration; where neither is small, all eigenvectors are.
    """
    d, largest = len(gram), largest_eigenvalue(gram)
    cut = truncation.cut(largest, dtype)
    if largest <= cut:
        return torch.zeros_like(columns)
    if count > d and is_positive_definite(gram, cut):
        return columns
    most_rank, null = count - 1, None
    if 2 * most_rank > d:
        null = null_space(gram, max(FIRST_GUESS, d - most_rank + FIRST_GUESS), cut, largest)
    if null is not None:
        return columns - null @ (null.T @ columns)
    inside = range_of(gram, most_rank, cut) if 2 * most_rank <= d else eigenvectors_above(gram, cut)
    return inside @ (inside.T @ columns)


def largest_eigenvalue(gram: Float[Tensor, "d d"]) -> float:
    """By power iteration from the row sums of squares; from below, to a few percent."""
    vector = gram.square().sum(1).sqrt()
    if not vector.any():
        return 0.0
    for _ in range(POWER_STEPS):
        vector = gram @ (vector / vector.norm())
    return vector.norm().item()


def is_positive_definite(gram: Float[Tensor, "d d"], cut: float) -> bool:
    """Whether all eigenvalues are above the cut."""
    shifted = gram.clone()
    shifted.diagonal().sub_(cut)
    return torch.linalg.cholesky_ex(shifted).info.item() == 0


def range_of(gram: Float[Tensor, "d d"], most_rank: int, cut: float) -> Float[Tensor, "d rank"]:
    """Eigenvectors above the cut, of which there are at most `most_rank`."""
    drawn = normal(len(gram), min(len(gram), most_rank + FIRST_GUESS), like=gram)
    spanned = torch.linalg.qr(gram @ drawn).Q
    return spanned @ eigenvectors_above(spanned.T @ gram @ spanned, cut)


def null_space(gram: Float[Tensor, "d d"], guess: int, cut: float, largest: float) -> Float[Tensor, "d null"] | None:
    """Eigenvectors at or below the cut; None where they are more than about half."""
    d = len(gram)
    shift = 10 * d * torch.finfo(gram.dtype).eps * largest
    shifted = gram.clone()
    shifted.diagonal().add_(max(shift, 2 * cut))
    factor, info = torch.linalg.cholesky_ex(shifted)
    if info.item():
        return None
    while guess <= d // 2 + FIRST_GUESS:
        vectors = normal(d, guess, like=gram)
        for _ in range(INVERSE_STEPS):
            vectors = torch.linalg.qr(torch.cholesky_solve(vectors, factor)).Q
        eigenvalues, rotation = descending_eigh(vectors.T @ gram @ vectors)
        null = eigenvalues <= max(cut, torch.finfo(gram.dtype).eps * largest)
        if not null.all():
            return vectors @ rotation[:, null]
        guess *= 2
    return None


def eigenvectors_above(gram: Float[Tensor, "d d"], cut: float) -> Float[Tensor, "d k"]:
    """Of all eigenvectors those above the cut."""
    eigenvalues, vectors = descending_eigh(gram)
    return vectors[:, eigenvalues > cut]


def normal(rows: int, columns: int, *, like: Tensor) -> Tensor:
    """Random directions, the same every time."""
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn.to(like)
