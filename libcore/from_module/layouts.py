"""From a module's own tensors to activations `[batch, position, d]` and back.

`[batch, d]` is one position, `[batch, position, d]` is as it is, and images `[batch, channel, row, column]` have pixels
as positions, row by row, and channels as coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Shape of one example in the module."""

    shape: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of an image."""
        return (self.shape[1], self.shape[2]) if len(self.shape) == 3 else None

    @property
    def width(self) -> int:
        """Coordinates, without the constant one."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1] if self.shape else 1

    def activation(self, value: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch position d"]:
        """The module's tensor as an activation without the constant coordinate."""
        if self.grid is not None:
            return value.flatten(2).transpose(1, 2)
        return value if len(self.shape) == 2 else value.reshape(len(value), 1, -1)

    def value(self, activation: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch ..."]:
        """The module's tensor of an activation without the constant coordinate."""
        if self.grid is not None:
            return activation.unflatten(1, self.grid).permute(0, 3, 1, 2)
        return activation if len(self.shape) == 2 else activation.squeeze(1)

    def with_constant(self, value: Tensor, constant: Tensor) -> Float[Tensor, "batch position d_and_constant"]:
        """The activation of a tensor and of the constant that belongs to each of its entries."""
        return torch.cat([self.activation(value), self.activation(constant).mean(-1, keepdim=True)], dim=-1)
