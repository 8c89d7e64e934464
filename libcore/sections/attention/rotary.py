"""Rotary positions: queries and keys turned by angles that grow with their position."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.sections.base import Movable


class Rotary(Movable):
    """Turns coordinates `(i, i + n)` of a head by the angle `position * frequencies[i]`, for `i < n`.

    The other coordinates stay. A score is a scalar product of a turned query and a turned key, so a model that pairs
    other coordinates is represented by permuting the columns of its query and key weights alike.
    """

    def __init__(self, frequencies: Float[Tensor, " pair"]) -> None:
        self.frequencies = frequencies.double()

    def to(self, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Rotary:
        """On another device; angles stay float64, since they grow with the position."""
        return Rotary(self.frequencies.to(device=device))

    def turn(
        self, heads: Float[Tensor, "*batch position d_head"], positions: Int[Tensor, " position"]
    ) -> Float[Tensor, "*batch position d_head"]:
        """Each row turned by its position; negative positions turn back."""
        cos, sin = self.waves(positions, heads.dtype)
        n = len(self.frequencies)
        first, second, rest = heads[..., :n], heads[..., n : 2 * n], heads[..., 2 * n :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)

    def turned_back_by_keys(
        self,
        heads: Float[Tensor, "*batch query d_head"],
        pairs: Float[Tensor, "*batch query key"],
        keys: Int[Tensor, " key"],
    ) -> Float[Tensor, "*batch query d_head"]:
        """`sum_s pairs_ts` times row `t` turned back by position `s`: one wave per angle, whatever the width."""
        cos, sin = (pairs @ wave for wave in self.waves(keys, heads.dtype))
        n = len(self.frequencies)
        first, second, rest = heads[..., :n], heads[..., n : 2 * n], heads[..., 2 * n :]
        rest = rest * pairs.sum(-1, keepdim=True)
        return torch.cat([first * cos + second * sin, second * cos - first * sin, rest], dim=-1)

    def waves(
        self, positions: Int[Tensor, " position"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "position pair"], Float[Tensor, "position pair"]]:
        """Cosine and sine of every angle."""
        angles = positions[:, None].to(self.frequencies.device) * self.frequencies
        return angles.cos().to(dtype), angles.sin().to(dtype)
