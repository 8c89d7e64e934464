"""Attention section: residual stream plus the outputs of all heads, biases folded, scale `1/sqrt(d_head)`."""

from __future__ import annotations

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.chunking import ActivationStream
from libcore.quadrature import Quadrature
from libcore.sections.attention_jacobian import attention_edges, attention_jacobian_gram
from libcore.sections.base import MaskedEvaluation, Section
from libcore.sections.masked import evaluate_mask_by_mask
from libcore.sections.masked_attention import masked_attention_evaluation


class AttentionSection(Section):
    """`f -> f_t @ residual + sum_h softmax(q_t k_s^T / sqrt(d_head)) v_s @ W_O^h`.

    Args:
        residual: `[d_in, d_out]`, carries the residual stream, the output bias and the constant coordinate.
        W_Q, W_K: `[head, d_in, d_head]`, biases in the last row.
        W_V: `[head, d_in, d_value]`, likewise.
        W_O: `[head, d_value, d_out]`.
        query_positions: the output positions to compute, None for all. What no later computation reads is left out.
        causal: position `t` attends to positions `s <= t` only.
    """

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
        self.residual = residual
        self.W_Q, self.W_K, self.W_V, self.W_O = W_Q, W_K, W_V, W_O
        self.query_positions = query_positions
        self.causal = causal

    @property
    def scale(self) -> float:
        """What attention scores are divided by."""
        return sqrt(self.W_Q.shape[-1])

    def queries_of(self, n_positions: int) -> list[int]:
        """Indices of the output positions, negative ones counted from the end; IndexError for one that is not there."""
        if self.query_positions is None:
            return list(range(n_positions))
        return [range(n_positions)[position] for position in self.query_positions]

    def attended_by(self, query: int, n_positions: int) -> list[int]:
        """Key positions that output position `query` attends to."""
        return list(range(query + 1 if self.causal else n_positions))

    def attend(self, activation: Float[Tensor, "batch position d_in"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries `[batch, head, query, d_head]`, keys and values `[batch, head, position, ...]`, and the pattern."""
        n_positions = activation.shape[1]
        queries = self.queries_of(n_positions)
        query = split_heads(activation[:, queries], self.W_Q)
        key, value = split_heads(activation, self.W_K), split_heads(activation, self.W_V)
        scores = query @ key.transpose(-1, -2) / self.scale
        if self.causal:
            future = torch.arange(n_positions)[None, :] > torch.tensor(queries)[:, None]
            scores = scores.masked_fill(future.to(scores.device), -torch.inf)
        return query, key, value, scores.softmax(-1)

    def __call__(self, activation: Float[Tensor, "batch position d_in"]) -> Float[Tensor, "batch position_out d_out"]:
        """The next node layer's activation at the query positions."""
        _, _, value, pattern = self.attend(activation)
        mixed = (pattern @ value).transpose(1, 2).flatten(2)
        return activation[:, self.queries_of(activation.shape[1])] @ self.residual + mixed @ self.W_O.flatten(0, 1)

    def closed_form_jacobian_gram(
        self, stream: ActivationStream, to_basis_next: Tensor, quadrature: Quadrature
    ) -> Float[Tensor, "d_in d_in"]:
        """Eq. 10 squared and summed; see `attention_jacobian.py`."""
        return attention_jacobian_gram(self, stream, to_basis_next, quadrature)

    def closed_form_edges(
        self,
        stream: ActivationStream,
        to_basis: Tensor,
        from_basis: Tensor,
        to_basis_next: Tensor,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """Eq. 10 into eq. 7; see `attention_jacobian.py`."""
        return attention_edges(self, stream, to_basis, from_basis, to_basis_next, quadrature)

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        from_basis: Tensor,
        to_basis_next: Tensor,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """By tables over distinct activations where there are few of them (one per token), else mask by mask."""
        fast = masked_attention_evaluation(self, features, from_basis, to_basis_next, memory_budget)
        return fast or evaluate_mask_by_mask(self, features, from_basis, to_basis_next, memory_budget)


def split_heads(
    activation: Float[Tensor, "batch position d_in"], weight: Float[Tensor, "head d_in d_head"]
) -> Float[Tensor, "batch head position d_head"]:
    """All heads in one product."""
    n_heads, _, d_head = weight.shape
    projected = activation @ weight.transpose(0, 1).flatten(1)
    return projected.unflatten(-1, (n_heads, d_head)).transpose(1, 2)
