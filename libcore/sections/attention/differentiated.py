"""Attention that does more to queries, keys and scores than `Attention`: a branch that is differentiated."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.attention import Attention
from libcore.sections.attention.head_normalisation import HeadNormalisation
from libcore.sections.attention.rotary import Waves
from libcore.sections.branch import AddedBranch, Positions


class DifferentiatedAttention(Attention, AddedBranch):
    """`Attention`, and in this order:

    Attributes:
        clip: queries, keys and values are limited to `-clip ... clip`; None for no limit.
        queries, keys: how they are normalised, the latter with a row for each key-value head; None for not at all.
        soft_cap: scores become `cap * tanh(score / cap)`; None for as they are.
    """

    clip: float | None
    queries: HeadNormalisation | None
    keys: HeadNormalisation | None
    soft_cap: float | None

    @classmethod
    def of(
        cls,
        attention: Attention,
        clip: float | None = None,
        queries: HeadNormalisation | None = None,
        keys: HeadNormalisation | None = None,
        soft_cap: float | None = None,
    ) -> DifferentiatedAttention:
        """The same attention with what is done besides."""
        branch = object.__new__(cls)
        vars(branch).update(vars(attention), clip=clip, queries=queries, keys=keys, soft_cap=soft_cap)
        return branch

    def prepared(
        self, q: Tensor, k: Tensor, v: Tensor, constant: Float[Tensor, "batch key"], positions: Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.clip is not None:
            q, k, v = (heads.clamp(-self.clip, self.clip) for heads in (q, k, v))
        q = prepared(q, positions.at_queries(constant), self.queries, self.waves(positions.queries, q))
        return q, prepared(k, constant, self.keys, self.waves(positions.keys, k)), v

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        scores = super().scores(q, k)
        return scores if self.soft_cap is None else soft_capped(self.soft_cap, scores)

    @property
    def scores_are_products(self) -> bool:
        return self.soft_cap is None

    def forward_values(self, positions: int, queries: int) -> int:
        n_heads, d_in, d_head = self.W_Q.shape
        d_value = self.W_V.shape[-1]
        of_heads = n_heads * (queries * (4 * d_head + d_value) + positions * (4 * d_head + d_value))
        return (
            positions * d_in * (1 if self.normalisation is None else 3) + of_heads + 4 * n_heads * queries * positions
        )


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
