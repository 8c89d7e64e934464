"""What heads read of an activation, and how queries and keys are made of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.head_normalisation import HeadNormalisation
from libcore.sections.attention.rotary import Waves


def prepared(
    heads: Float[Tensor, "batch head position d_head"],
    constant: Float[Tensor, "batch position"],
    normalisation: HeadNormalisation | None,
    waves: Waves,
) -> Float[Tensor, "batch head position d_head"]:
    """Queries or keys normalised, and turned by their positions, in the order that the normalisation asks for."""
    if normalisation is None:
        return waves.turn(heads)
    if normalisation.turned:
        return normalisation(waves.turn(heads), constant)
    return waves.turn(normalisation(heads, constant))


def soft_capped(cap: float, values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """`cap * tanh(value / cap)`."""
    return cap * torch.tanh(values / cap)


def of_heads(weight: Float[Tensor, "head d_in d_head"]) -> Float[Tensor, "d_in head_and_d_head"]:
    """Of all heads side by side."""
    return weight.transpose(0, 1).flatten(1)


def split_heads(
    activation: Float[Tensor, "batch position d_in"], weight: Float[Tensor, "head d_in d_head"]
) -> Float[Tensor, "batch head position d_head"]:
    """What every head reads of an activation, in one product."""
    return (activation @ of_heads(weight)).unflatten(-1, (len(weight), -1)).transpose(1, 2)
