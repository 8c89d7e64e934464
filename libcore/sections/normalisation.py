"""LayerNorm and RMSNorm in front of a branch: what they divide by, and how that moves with the activation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.base import Movable


class Normalisation(Movable):
    """Divides the first `width` coordinates, the residual stream `x`, by `σ(x) = sqrt(mean(x_c²) + eps)`.

    `x_c` is `x` less its mean over coordinates for LayerNorm (`centred`), `x` itself for RMSNorm. A gain and a bias
    belong into the weights that read the result, and so does the subtraction of the mean (`fold`).
    """

    def __init__(self, width: int, centred: bool, eps: float) -> None:
        self.width = width
        self.centred = centred
        self.eps = eps

    def centre(self, activation: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch width"]:
        """`x_c`."""
        residual = activation[..., : self.width]
        return residual - residual.mean(-1, keepdim=True) if self.centred else residual

    def inverse_scale(self, activation: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch 1"]:
        """`1 / σ(x)`."""
        return (self.centre(activation).square().mean(-1, keepdim=True) + self.eps).rsqrt()

    def __call__(self, activation: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """`[x / σ(x), rest]`, for weights that were folded."""
        scaled = activation[..., : self.width] * self.inverse_scale(activation)
        return torch.cat([scaled, activation[..., self.width :]], dim=-1)

    def fold(self, weight: Float[Tensor, "*head d_in d_out"]) -> Float[Tensor, "*head d_in d_out"]:
        """Weights that read `x` where the given ones read `x_c`."""
        if not self.centred:
            return weight
        reading_residual, rest = weight[..., : self.width, :], weight[..., self.width :, :]
        return torch.cat([reading_residual - reading_residual.mean(-2, keepdim=True), rest], dim=-2)
