"""How the leading features of a node layer may be mixed: `fhat' = fhat T`, by gauge (METHOD.md 6).

Every gauge is a smooth function of numbers without constraints, so that any descent stays in it. The rows of `T^-1`
have norm 1: where the Jacobian Gram of `fhat` is the identity, that of `fhat'` has diagonal 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Gauge = Literal["lib", "whitened", "free"]

MOST_CONDITION = 10.0
"""Of a free mixing: the largest by the smallest of its singular values."""


@dataclass(frozen=True)
class Mixing:
    """`fhat' = fhat @ forward`, and back.

    Attributes:
        forward: `T`.
        backward: `T^-1`.
    """

    forward: Float[Tensor, "k k"]
    backward: Float[Tensor, "k k"]


class Mixings(ABC):
    """All mixings of one gauge, by parameters that are zero where a descent starts."""

    parameters: list[Tensor]

    @abstractmethod
    def __call__(self) -> Mixing:
        """The mixing that the parameters stand for, differentiable in them."""


class Rotations(Mixings):
    """Orthogonal in the features scaled by `scale`: LIB's own coordinates with 1, whitened ones with `Λ^(-1/2)`.

    Args:
        start: the orthogonal matrix to start from.
        scale: of the features, before they are rotated.
    """

    def __init__(self, start: Float[Tensor, "k k"], scale: Float[Tensor, " k"] | None = None) -> None:
        self.start, self.scale = start, scale
        self.parameters = [torch.zeros_like(start).requires_grad_()]

    def __call__(self) -> Mixing:
        rotation = self.start @ rotation_of(self.parameters[0])
        if self.scale is None:
            return Mixing(rotation, rotation.T)
        return with_unit_rows(self.scale[:, None] * rotation, rotation.T / self.scale)


class FreeMixings(Mixings):
    """Invertible, with a condition of at most `MOST_CONDITION`: two rotations, and bounded scales between them."""

    def __init__(self, start: Float[Tensor, "k k"]) -> None:
        self.start = start
        scales = start.new_zeros(len(start))
        self.parameters = [one.requires_grad_() for one in (torch.zeros_like(start), torch.zeros_like(start), scales)]

    def __call__(self) -> Mixing:
        first, second, scales = self.parameters
        # A condition of its square root here: rows of norm 1 can make it as much again.
        scale = torch.exp(log(MOST_CONDITION) / 4 * torch.tanh(scales))
        left, right = self.start @ rotation_of(first), rotation_of(second)
        return with_unit_rows(left * scale @ right, right.T / scale @ left.T)


def rotation_of(free: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """The exponential of the matrix's skew-symmetric part: orthogonal, the identity at zero."""
    return torch.linalg.matrix_exp(free - free.T)


def with_unit_rows(forward: Float[Tensor, "k k"], backward: Float[Tensor, "k k"]) -> Mixing:
    """Every mixed feature scaled so that its row of `T^-1` has norm 1."""
    norms = backward.norm(dim=1)
    return Mixing(forward * norms, backward / norms[:, None])
