"""Attention that does more to queries, keys and values than has a closed form: a branch that is differentiated."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.attention import Attention
from libcore.sections.branch import AddedBranch, Positions


class DifferentiatedAttention(Attention, AddedBranch):
    """Attention whose queries, keys and values are limited, or normalised by what has no closed form.

    Attributes:
        clip: queries, keys and values are limited to `-clip ... clip` as they are read; None for no limit.
    """

    clip: float | None

    @classmethod
    def of(cls, attention: Attention, clip: float | None) -> DifferentiatedAttention:
        """The same attention with what is done besides."""
        branch = object.__new__(cls)
        vars(branch).update(vars(attention), clip=clip)
        return branch

    def prepared(
        self, q: Tensor, k: Tensor, v: Tensor, constant: Float[Tensor, "batch key"], positions: Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.clip is not None:
            q, k, v = (heads.clamp(-self.clip, self.clip) for heads in (q, k, v))
        return super().prepared(q, k, v, constant, positions)

    def forward_values(self, positions: int, queries: int) -> int:
        n_heads, d_in, d_head = self.W_Q.shape
        d_value = self.W_V.shape[-1]
        of_heads = n_heads * (queries * (4 * d_head + d_value) + positions * (4 * d_head + d_value))
        return (
            positions * d_in * (1 if self.normalisation is None else 3) + of_heads + 4 * n_heads * queries * positions
        )
