"""How queries or keys come from what heads read, and the derivative of that, linear at every position.

Positions turn them, the same for all inputs; a normalisation of heads `g κ / σ(κ)` moves with its input, by

    dκ  ->  g (dκ - κ̃ (κ̃ dκ) / d_head) / σ,    κ̃ = κ / σ.

Where all heads are normalised together, `κ̃ dκ` is a sum over heads: it is left out here, and has a rank-one term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.head_normalisation import HeadNormalisation
from libcore.sections.attention.rotary import Waves


@dataclass(frozen=True)
class NormalisedHeads:
    """Where a normalisation of heads was applied.

    Attributes:
        unit: `κ̃`.
        inverse_scale: `1 / σ`.
        gain: `g`.
    """

    normalisation: HeadNormalisation
    unit: Float[Tensor, "head batch *position d_head"]
    inverse_scale: Float[Tensor, "head batch *position 1"]
    gain: Float[Tensor, "head *ones d_head"]

    def pull_back(self, heads: Float[Tensor, "head batch *position d_head"]) -> Tensor:
        """The derivative's transpose."""
        heads = heads * self.gain
        if not self.normalisation.together:
            heads = heads - self.unit * (heads * self.unit).mean(-1, keepdim=True)
            if self.normalisation.centred:
                heads = heads - heads.mean(-1, keepdim=True)
        return heads * self.inverse_scale

    def push_forward(self, heads: Float[Tensor, "head batch *position d_head"]) -> Tensor:
        """The derivative."""
        if not self.normalisation.together:
            if self.normalisation.centred:
                heads = heads - heads.mean(-1, keepdim=True)
            heads = heads - self.unit * (heads * self.unit).mean(-1, keepdim=True)
        return heads * self.inverse_scale * self.gain

    def unsqueezed(self, dim: int) -> NormalisedHeads:
        """The same beside a dimension more."""
        parts = (self.unit, self.inverse_scale, self.gain)
        return NormalisedHeads(self.normalisation, *(part.unsqueeze(dim) for part in parts))


@dataclass(frozen=True)
class HeadMap:
    """The derivative at some heads: turned by their positions, and normalised before that or after it."""

    waves: Waves
    normalised: NormalisedHeads | None = None

    @classmethod
    def of(
        cls,
        normalisation: HeadNormalisation | None,
        heads: Float[Tensor, "head batch position d_head"],
        waves: Waves,
    ) -> HeadMap:
        """At heads as they are read; a normalisation has a gain for each of them, or for each that some share."""
        if normalisation is None:
            return cls(waves)
        read = waves.turn(heads) if normalisation.turned else heads
        unit, inverse_scale = normalisation.unit(read.transpose(0, 1))
        gain = normalisation.gain[:, None, None]
        unit, inverse_scale = unit.transpose(0, 1), inverse_scale.expand(*unit.shape[:-1], 1).transpose(0, 1)
        return cls(waves, NormalisedHeads(normalisation, unit.contiguous(), inverse_scale.contiguous(), gain))

    def pull_back(self, heads: Float[Tensor, "head batch *position d_head"]) -> Tensor:
        """From a vector that queries or keys are multiplied with to the one that what was read is."""
        if self.normalised is None:
            return self.waves.turn_back(heads)
        if self.normalised.normalisation.turned:
            return self.waves.turn_back(self.normalised.pull_back(heads))
        return self.normalised.pull_back(self.waves.turn_back(heads))

    def push_forward(self, heads: Float[Tensor, "head batch *position d_head"]) -> Tensor:
        """From a change of what was read to that of queries or keys."""
        if self.normalised is None:
            return self.waves.turn(heads)
        if self.normalised.normalisation.turned:
            return self.normalised.push_forward(self.waves.turn(heads))
        return self.waves.turn(self.normalised.push_forward(heads))

    def at(self, positions: slice | Tensor) -> HeadMap:
        """At some of the positions."""
        waves, normalised = self.waves.at(positions), self.normalised
        if normalised is not None:
            unit, scale = normalised.unit[:, :, positions], normalised.inverse_scale[:, :, positions]
            normalised = replace(normalised, unit=unit, inverse_scale=scale)
        return HeadMap(waves, normalised)

    def for_each_query(self) -> HeadMap:
        """Of `[head, batch, query, key, d_head]`, these being the keys."""
        return HeadMap(self.waves, None if self.normalised is None else self.normalised.unsqueezed(2))

    def of_rows(self) -> HeadMap:
        """Of `[head, batch, position, row, d_head]`."""
        waves = Waves(self.waves.cos[:, None], self.waves.sin[:, None])
        return HeadMap(waves, None if self.normalised is None else self.normalised.unsqueezed(3))

    def heads(self, which: slice | Tensor) -> HeadMap:
        """Some of the heads, or one as often as it is named."""
        if self.normalised is None:
            return self
        of = self.normalised
        return HeadMap(
            self.waves, NormalisedHeads(of.normalisation, of.unit[which], of.inverse_scale[which], of.gain[which])
        )

    @classmethod
    def side_by_side(cls, maps: Sequence[HeadMap]) -> HeadMap:
        """Heads of several points of a path in one dimension."""
        normalised = [one.normalised for one in maps if one.normalised is not None]
        if not normalised:
            return maps[0]
        parts = (torch.cat([getattr(one, name) for one in normalised]) for name in ("unit", "inverse_scale", "gain"))
        return cls(maps[0].waves, NormalisedHeads(normalised[0].normalisation, *parts))
