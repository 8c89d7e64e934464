"""Attention that does more to queries, keys and scores than `Attention`: a branch that is differentiated."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.attention import Attention, Pattern, split_heads
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

    def project(self, activation: Float[Tensor, "batch position d_in"], positions: Positions) -> tuple[Tensor, ...]:
        read = activation if self.normalisation is None else self.normalisation(activation)
        q = split_heads(positions.at_queries(read), self.W_Q)
        k, v = (split_heads(read, weight[:: self.group]) for weight in (self.W_K, self.W_V))
        if self.clip is not None:
            q, k, v = (heads.clamp(-self.clip, self.clip) for heads in (q, k, v))
        constant = activation[..., -1]
        q = prepared(q, positions.at_queries(constant), self.queries, self.waves(positions.queries, q))
        return q, prepared(k, constant, self.keys, self.waves(positions.keys, k)), v

    def pattern(self, activation: Float[Tensor, "batch position d_in"], positions: Positions) -> Pattern:
        q, k, v = self.project(activation, positions)
        k, v = self.for_heads(k), self.for_heads(v)
        scores = (q / self.scale) @ k.transpose(-1, -2)
        if self.soft_cap is not None:
            scores = soft_capped(self.soft_cap, scores)
        return Pattern(q, k, v, (scores + self.added_to_scores(positions)).softmax(-1))

    def __call__(self, activation: Tensor, positions: Positions) -> Tensor:
        if self.soft_cap is None:
            return super().__call__(activation, positions)
        pattern = self.pattern(activation, positions)
        return (pattern.a @ pattern.v).transpose(1, 2).flatten(2) @ self.W_O.flatten(0, 1)

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
