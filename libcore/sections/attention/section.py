"""Attention section: residual stream plus the outputs of all heads, biases folded, scale `1/sqrt(d_head)`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.sections.attention.branch import AttentionBranch
from libcore.sections.attention.kept import kept_attention_evaluation
from libcore.sections.attention.masked import masked_attention_evaluation
from libcore.sections.base import KeptEvaluation, MaskedEvaluation
from libcore.sections.block import BlockSection
from libcore.streams import ActivationStream


class AttentionSection(BlockSection):
    """A block of one attention branch without normalisation, for inputs of few distinct tokens and positions.

    Args:
        residual: `[d_in, d_out]`, carries the residual stream, the output bias and the constant coordinate.
        W_Q, W_K: `[head, d_in, d_head]`, biases in the last row.
        W_V: `[head, d_in, d_value]`, likewise.
        W_O: `[head, d_value, d_out]`.
        query_positions: the output positions to compute, None for all. What no later computation reads is left out.
        causal: position `t` attends to positions `s <= t` only.
    """

    branches: tuple[AttentionBranch]

    def __init__(
        self,
        residual: Float[Tensor, "d_in d_out"],
        W_Q: Float[Tensor, "head d_in d_head"],
        W_K: Float[Tensor, "head d_in d_head"],
        W_V: Float[Tensor, "head d_in d_value"],
        W_O: Float[Tensor, "head d_value d_out"],
        query_positions: tuple[int, ...] | None = None,
        causal: bool = True,
    ) -> None:
        super().__init__(residual, (AttentionBranch(W_Q, W_K, W_V, W_O, causal=causal),), query_positions)

    @property
    def attention(self) -> AttentionBranch:
        """The branch."""
        return self.branches[0]

    @property
    def weights_written(self) -> int:
        """Of the heads alone: what the residual stream writes is in a table, too."""
        return self.attention.writes.numel()

    def kept_evaluation(self, stream: ActivationStream, basis: Basis) -> KeptEvaluation | None:
        """By tables over distinct activations where there are few of them (one per token), else None."""
        return kept_attention_evaluation(
            self.residual, self.attention, self.positions_of(stream.example()), stream, basis
        )

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        basis: Basis,
        next_basis: Basis,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """By tables over distinct activations where there are few of them (one per token), else as any block's."""
        positions = self.positions_of(features)
        fast = masked_attention_evaluation(
            self.residual, self.attention, positions, features, basis, next_basis, memory_budget
        )
        return fast or super().masked_evaluation(features, basis, next_basis, memory_budget)
