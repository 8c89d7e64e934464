"""Rotary positions: queries and keys turned by angles that grow with their position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from libcore.sections.base import Movable


@dataclass(frozen=True)
class Waves:
    """Cosine and sine of every angle at some positions; of no angle where positions turn nothing."""

    cos: Float[Tensor, "position *beside pair"]
    sin: Float[Tensor, "position *beside pair"]

    def at(self, rows: slice | Tensor) -> Waves:
        """At some of the positions."""
        return Waves(self.cos[rows], self.sin[rows])

    def turn(self, heads: Float[Tensor, "*batch position d_head"]) -> Float[Tensor, "*batch position d_head"]:
        """Each row turned by its position."""
        return self._turned(heads, self.sin)

    def turn_back(self, heads: Float[Tensor, "*batch position d_head"]) -> Float[Tensor, "*batch position d_head"]:
        """Each row turned by less than nothing: undoes `turn`."""
        return self._turned(heads, -self.sin)

    def _turned(self, heads: Tensor, sin: Tensor) -> Tensor:
        n = sin.shape[-1]
        if n == 0:
            return heads
        first, second, rest = heads[..., :n], heads[..., n : 2 * n], heads[..., 2 * n :]
        if torch.is_grad_enabled():
            return torch.cat([first * self.cos - second * sin, second * self.cos + first * sin, rest], dim=-1)
        turned = torch.empty_like(heads)
        torch.mul(first, self.cos, out=turned[..., :n]).addcmul_(second, sin, value=-1)
        torch.mul(second, self.cos, out=turned[..., n : 2 * n]).addcmul_(first, sin)
        turned[..., 2 * n :] = rest
        return turned

    def turn_columns(
        self, heads: Float[Tensor, "*batch d_head position n"]
    ) -> Float[Tensor, "*batch d_head position n"]:
        """`turn` where coordinates come before positions."""
        return self._turned_columns(heads, self.sin)

    def turn_columns_back(
        self, heads: Float[Tensor, "*batch d_head position n"]
    ) -> Float[Tensor, "*batch d_head position n"]:
        """`turn_back` likewise."""
        return self._turned_columns(heads, -self.sin)

    def _turned_columns(self, heads: Tensor, sin: Tensor) -> Tensor:
        n = sin.shape[-1]
        if n == 0:
            return heads
        cos, sin, turned = self.cos.T[..., None], sin.T[..., None], heads.clone()
        turned[..., :n, :, :].mul_(cos).addcmul_(heads[..., n : 2 * n, :, :], sin, value=-1)
        turned[..., n : 2 * n, :, :].mul_(cos).addcmul_(heads[..., :n, :, :], sin)
        return turned

    def turned_back_by_each(
        self, heads: Float[Tensor, "*batch query d_head"], pairs: Float[Tensor, "*pair query position"]
    ) -> Float[Tensor, "*batch query d_head"]:
        """`sum_s pairs_ts` times row `t` turned back by position `s`: one wave per angle, whatever the width."""
        n = self.cos.shape[-1]
        cos, sin, total = (pairs @ torch.cat([self.cos, self.sin, torch.ones_like(self.cos[:, :1])], 1)).split(
            (n, n, 1), dim=-1
        )
        first, second, rest = heads[..., :n], heads[..., n : 2 * n], heads[..., 2 * n :]
        return torch.cat([first * cos + second * sin, second * cos - first * sin, rest * total], dim=-1)


class Rotary(Movable):
    """Turns coordinates `(i, i + n)` of a head by the angle `position * frequencies[i]`, for `i < n`.

    The other coordinates stay. A score is a scalar product of a turned query and a turned key, so a model that pairs
    other coordinates is represented by permuting the columns of its query and key weights alike.
    """

    def __init__(self, frequencies: Float[Tensor, " pair"]) -> None:
        self.frequencies = frequencies.double()
        self.computed: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def to(self, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Rotary:
        """On another device; angles stay float64, since they grow with the position."""
        return Rotary(self.frequencies.to(device=device))

    def waves(self, positions: Int[Tensor, " position"], dtype: torch.dtype) -> Waves:
        """At these positions; once for as long as their tensor lives, since every chunk of a pass asks again."""
        by_dtype: dict[torch.dtype, Waves] = self.computed.get(positions) or {}
        if dtype not in by_dtype:
            angles = positions[:, None].to(self.frequencies.device) * self.frequencies
            waves = Waves(angles.cos().to(dtype), angles.sin().to(dtype))
            self.computed[positions] = by_dtype = by_dtype | {dtype: waves}
        return by_dtype[dtype]
