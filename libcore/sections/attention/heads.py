"""What every head reads of an activation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def split_heads(
    activation: Float[Tensor, "batch position d_in"], weight: Float[Tensor, "head d_in d_head"]
) -> Float[Tensor, "batch head position d_head"]:
    """All heads in one product."""
    n_heads, _, d_head = weight.shape
    projected = activation @ weight.transpose(0, 1).flatten(1)
    return projected.unflatten(-1, (n_heads, d_head)).transpose(1, 2)
