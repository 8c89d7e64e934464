"""LayerNorm or RMSNorm of queries or keys, head by head or of all heads together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.base import Movable


class HeadNormalisation(Movable):
    """`heads -> gain * heads_c / sqrt(mean(heads_c²) + eps) + shift`, `heads_c` less the mean where it is centred.

    Args:
        gain, shift: `[head, d_head]`; the shift reads the constant coordinate.
        centred: LayerNorm's.
        together: mean and scale are of all heads' coordinates, and not of each head's.
        eps: added to the variance.
        turned: applied to what positions have turned, and not before.
    """

    def __init__(
        self,
        gain: Float[Tensor, "head d_head"],
        shift: Float[Tensor, "head d_head"],
        centred: bool,
        together: bool,
        eps: float,
        turned: bool = False,
    ) -> None:
        self.gain = gain
        self.shift = shift
        self.centred = centred
        self.together = together
        self.eps = eps
        self.turned = turned

    def __call__(
        self, heads: Float[Tensor, "batch head position d_head"], constant: Float[Tensor, "batch position"]
    ) -> Float[Tensor, "batch head position d_head"]:
        unit, _ = self.unit(heads)
        return unit * self.gain[:, None] + constant[:, None, :, None] * self.shift[:, None]

    def unit(
        self, heads: Float[Tensor, "batch head position d_head"]
    ) -> tuple[Float[Tensor, "batch head position d_head"], Float[Tensor, "batch heads position one"]]:
        """Before gain and shift, and `1 / σ`."""
        over = (1, 3) if self.together else (3,)
        if self.centred:
            heads = heads - heads.mean(over, keepdim=True)
        inverse_scale = torch.rsqrt(heads.square().mean(over, keepdim=True) + self.eps)
        return heads * inverse_scale, inverse_scale

    @property
    def has_closed_form(self) -> bool:
        """Whether its derivative has: without a shift, which the constant coordinate would read past it, and where all
        heads are centred together by what is folded into weights, which is not done."""
        return not (self.shift.any().item() or (self.centred and self.together))
