"""Symmetric eigendecomposition with a stated cut and signs fixed by a rule (METHOD.md eq. 2, 5)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.messages import first_line
from libcore.names import refuse_other
from libcore.numerical_errors import NumericalError, all_finite
from libcore.parallel import one_thread

TruncationRule = Literal["relative", "absolute"]
TRUNCATION_RULES: tuple[str, ...] = get_args(TruncationRule)


@dataclass(frozen=True)
class Truncation:
    """Which eigenvalues count as zero.

    `relative` drops eigenvalues at or below `threshold` times the largest. Without a threshold that is `eps` of the
    dtype the activations were computed in: a Gram's entries are stored to a relative `eps`, and by Weyl's inequality no
    eigenvalue moves further than the norm of that perturbation, so a direction below it cannot be told from zero. A
    Gram's own round-off is of that order: null directions were measured at 3e-17 of the largest in modular addition,
    and at up to 5e-16 in data of 512 dimensions and rank 50, where a few of them are therefore kept.
    `absolute` drops eigenvalues at or below `threshold` itself (the published code: 1e-15, the default here), whatever
    the scale of the activations.
    """

    rule: TruncationRule = "relative"
    threshold: float | None = None

    def __post_init__(self) -> None:
        refuse_other("rule", self.rule, TRUNCATION_RULES)

    def cut(self, largest: float, dtype: torch.dtype) -> float:
        """The eigenvalue at or below which a direction is dropped; never negative."""
        if self.rule == "absolute":
            return 1e-15 if self.threshold is None else self.threshold
        threshold = torch.finfo(dtype).eps if self.threshold is None else self.threshold
        return max(0.0, threshold * largest)


WORTH_SHARING = 512
"""Width from which several threads decompose faster. Below it, two gain a few milliseconds at most, and beside another
busy process, where they wait for each other, lose more."""

RELATIVE = Truncation()
"""The default: machine epsilon of the largest eigenvalue."""


def descending_eigh(
    symmetric: Float[Tensor, "d d"], isolated: Sequence[int] = ()
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Eigenvalues, largest first, clipped at zero, and eigenvectors as columns.

    The input is positive semi-definite up to round-off: eigenvalues below zero are round-off and become zero, they are
    not made positive. Each eigenvector's entry of largest magnitude is positive, so that equal inputs give equal files.
    An isolated coordinate is an eigenvector of its own, as if nothing were correlated with it. Raises NumericalError
    where there is no decomposition.
    """
    if isolated:
        return isolated_eigh(symmetric, isolated)
    with one_thread() if len(symmetric) < WORTH_SHARING else nullcontext():
        try:
            eigenvalues, eigenvectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise without_decomposition(symmetric, first_line(error)) from error
    if not all_finite(eigenvalues):  # of small matrices LAPACK says nothing
        raise without_decomposition(symmetric, "its eigenvalues are not finite")
    return eigenvalues.flip(0).clamp(min=0.0), fix_signs(eigenvectors.flip(1))


def without_decomposition(symmetric: Float[Tensor, "d d"], reason: str) -> NumericalError:
    """What is wrong with a matrix that has no eigendecomposition."""
    if not all_finite(symmetric):
        reason = "it holds numbers that are not finite"
    return NumericalError(f"a symmetric matrix of {len(symmetric)} rows has no eigendecomposition: {reason}")


def isolated_eigh(
    symmetric: Float[Tensor, "d d"], isolated: Sequence[int]
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """`descending_eigh` of the other coordinates, and each isolated one, sorted together."""
    d = len(symmetric)
    others = [index for index in range(d) if index not in isolated]
    values = symmetric.diagonal()[list(isolated)].clamp(min=0.0)
    vectors = torch.eye(d, dtype=symmetric.dtype, device=symmetric.device)[:, list(isolated)]
    other_values, rotation = descending_eigh(symmetric[others][:, others])
    other_vectors = symmetric.new_zeros(d, len(others))
    other_vectors[others] = rotation
    eigenvalues, order = torch.cat([other_values, values]).sort(descending=True, stable=True)
    return eigenvalues, torch.cat([other_vectors, vectors], dim=1)[:, order]


def isolated_columns(vectors: Float[Tensor, "d k"], isolated: Sequence[int]) -> tuple[int, ...]:
    """Which of the kept eigenvectors are isolated coordinates."""
    return tuple(torch.nonzero((vectors[list(isolated)] != 0).any(0)).flatten().tolist())


def signs_of(columns: Float[Tensor, "d k"]) -> Float[Tensor, " k"]:
    """1 or -1: of each column's entry of largest magnitude."""
    if columns.numel() == 0:
        return columns.new_ones(columns.shape[1])
    largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))[0]
    return torch.where(largest < 0, -1.0, 1.0).to(columns)


def fix_signs(columns: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    """The same columns, each with a positive entry of largest magnitude."""
    return columns * signs_of(columns)


def largest_of(descending: Float[Tensor, " k"]) -> float:
    """The first entry; zero for a layer that nothing but its constant varies in."""
    return descending[0].item() if len(descending) else 0.0
