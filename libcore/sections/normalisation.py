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
        return self.inverse_scale_of(self.centre(activation))

    def inverse_scale_of(self, centred: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch 1"]:
        """`1 / σ(x)` from `x_c`."""
        return (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt()

    def of_output(self, output: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch width"]:
        """`x_c / σ(x)`, where no weights were folded."""
        centred = self.centre(output)
        return centred * self.inverse_scale_of(centred)

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


def check_width(normalisation: Normalisation | None, weight: Float[Tensor, "*head d_in d_out"]) -> None:
    """A normalised branch reads the residual stream and the constant coordinate, nothing else."""
    if normalisation is not None and weight.shape[-2] != normalisation.width + 1:
        raise ValueError(
            f"weight reads {weight.shape[-2]} coordinates; expected {normalisation.width} normalised and the constant"
        )


def padded(residual: Float[Tensor, "*batch width"], n: int) -> Float[Tensor, "*batch d_in"]:
    """With `n` further coordinates, zero."""
    return torch.cat([residual, residual.new_zeros(*residual.shape[:-1], n)], dim=-1)


def unit_like(activation: Float[Tensor, "*batch d_in"], coordinate: int) -> Float[Tensor, "*batch d_in"]:
    """The same coordinate direction everywhere."""
    unit = activation.new_zeros(activation.shape[-1])
    unit[coordinate] = 1.0
    return unit.expand_as(activation)
