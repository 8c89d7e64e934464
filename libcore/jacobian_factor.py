"""A Jacobian Gram by its factors, where few outputs or hidden neurons read many inputs (METHOD.md eq. 6b)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.eigen import descending_eigh


@dataclass(frozen=True)
class JacobianFactor:
    """`M' = reads @ middle @ reads^T`, float64.

    Attributes:
        reads: `[d_in, rank]`, the directions that are read.
        middle: `[rank, rank]`, positive semi-definite.
    """

    reads: Float[Tensor, "d_in rank"]
    middle: Float[Tensor, "rank rank"]

    def gram(self) -> Float[Tensor, "d_in d_in"]:
        """`M'`."""
        return self.reads @ self.middle @ self.reads.T

    def root(self) -> Float[Tensor, "d_in rank"]:
        """`B` with `M' = B B^T`, without directions that are round-off."""
        eigenvalues, vectors = descending_eigh(self.middle)
        kept = eigenvalues > len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues[:1]
        return self.reads @ (vectors[:, kept] * eigenvalues[kept].sqrt())
