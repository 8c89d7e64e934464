"""Inputs that are small integers, such as pixels: their Grams are exact in float32, at twice the speed of float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.constant import with_constant

EXACT_BELOW = 2**24
"""Sums of integers in float32 are exact as long as none is larger."""


@dataclass(frozen=True)
class ScaledIntegers:
    """`integers [batch, ...] -> [integers / largest, 1]`, one position: an embedding.

    Attributes:
        largest: integers are between 0 and this.
        dtype, device: of the activation.
    """

    largest: int
    dtype: torch.dtype
    device: torch.device

    def __call__(self, inputs: Tensor) -> Float[Tensor, "batch 1 d"]:
        values = inputs.to(self.device).flatten(1).to(self.dtype).div_(self.largest)
        return with_constant(values)[:, None]

    @property
    def middle(self) -> int:
        """Subtracted before products, which are the smaller for it."""
        return (self.largest + 1) // 2

    @property
    def rows_per_product(self) -> int:
        """So many squares have a sum that is exact."""
        return max(1, EXACT_BELOW // self.middle**2)

    def about_the_middle(self, inputs: Tensor) -> Float[Tensor, "batch d_without_constant"]:
        """Integers as float32, `middle` subtracted."""
        return inputs.to(self.device).flatten(1).float().sub_(self.middle)
