"""Attention itself: what all heads read, how positions turn and limit it, and its forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from libcore.sections.attention.head_normalisation import HeadNormalisation
from libcore.sections.attention.heads import of_heads, prepared, soft_capped, split_heads
from libcore.sections.attention.operations import AttentionShape
from libcore.sections.attention.rotary import Rotary, Waves
from libcore.sections.base import Movable
from libcore.sections.branch import Positions
from libcore.sections.normalisation import Normalisation, check_width

KEYS_PER_BLOCK = 64
"""Keys whose pairs are treated together: few enough to leave out most pairs without attention, enough for a product."""


class Attention(Movable):
    """`f -> sum_h softmax(q_t k_s^T / scale) v_s @ W_O^h`.

    Args:
        W_Q: `[head, d_in, d_head]`, bias in the last row.
        W_K, W_V: `[key_value_head, d_in, d_head or d_value]`, likewise; each serves as many heads in a row as there
            are heads to a key-value head (grouped queries).
        W_O: `[head, d_value, d_out]`.
        normalisation: of what queries, keys and values read, None for none; its gain and bias are in the weights, and
            `d_in` is its width and the constant coordinate.
        scale: what scores are divided by, `sqrt(d_head)` by default.
        rotary: turns queries and keys.
        window: position `t` attends to positions `t - window < s <= t` only.
        causal: position `t` attends to positions `s <= t` only.
        slopes: of each head; `slopes[h] * (s - t)` is added to the scores (ALiBi), None for nothing.
        queries, keys: how they are normalised, the latter with a row for each key-value head; None for not at all.
        soft_cap: scores become `cap * tanh(score / cap)`; None for as they are.
    """

    def __init__(
        self,
        W_Q: Float[Tensor, "head d_in d_head"],
        W_K: Float[Tensor, "key_value_head d_in d_head"],
        W_V: Float[Tensor, "key_value_head d_in d_value"],
        W_O: Float[Tensor, "head d_value d_out"],
        normalisation: Normalisation | None = None,
        scale: float | None = None,
        rotary: Rotary | None = None,
        window: int | None = None,
        causal: bool = True,
        slopes: Float[Tensor, " head"] | None = None,
        queries: HeadNormalisation | None = None,
        keys: HeadNormalisation | None = None,
        soft_cap: float | None = None,
    ) -> None:
        check_width(normalisation, W_Q)
        if len(W_Q) % len(W_K):
            raise ValueError(f"{len(W_Q)} heads on {len(W_K)} key-value heads; expected a multiple")
        self.group = len(W_Q) // len(W_K)
        weights = (W_Q, W_K.repeat_interleave(self.group, 0), W_V.repeat_interleave(self.group, 0))
        if normalisation is not None:
            weights = tuple(normalisation.fold(weight) for weight in weights)
        self.W_Q, self.W_K, self.W_V = weights
        self.W_O = W_O
        self.normalisation = normalisation
        self.scale = sqrt(W_Q.shape[-1]) if scale is None else scale
        self.rotary = rotary
        self.window = window
        self.causal = causal
        self.slopes = slopes
        self.queries = queries
        self.keys = keys
        self.soft_cap = soft_cap

    def waves(self, positions: Int[Tensor, " position"], like: Tensor) -> Waves:
        """What turns queries and keys at these positions: nothing where positions are not rotary."""
        if self.rotary is not None:
            return self.rotary.waves(positions, like.dtype)
        none = like.new_zeros(len(positions), 0)
        return Waves(none, none)

    def attends(self, positions: Positions) -> Bool[Tensor, "query key"]:
        """Keys that a query attends to."""
        query, key = positions.queries[:, None], positions.keys[None, :]
        attends = torch.ones(len(query), positions.count, dtype=torch.bool, device=query.device)
        if self.causal:
            attends &= key <= query
        if self.window is not None:
            attends &= key > query - self.window
        return attends

    def added_to_scores(self, positions: Positions) -> Float[Tensor, "#head query key"]:
        """Minus infinity where a query does not attend to a key; what the slopes add elsewhere."""
        attends = self.attends(positions)
        if self.slopes is None:
            return self.W_O.new_zeros(1, *attends.shape).masked_fill(~attends, -torch.inf)
        distance = positions.keys[None, :] - positions.queries[:, None]
        return (self.slopes[:, None, None] * distance).masked_fill(~attends, -torch.inf)

    def key_blocks(self, positions: Positions) -> Iterator[tuple[slice | Tensor, slice]]:
        """Rows of queries and of keys, block by block of keys, that hold every pair in which one attends to the other.

        Half of all pairs are none, where attention is causal; with a window, most are.
        """
        attends = self.attends(positions)
        for start in range(0, positions.count, KEYS_PER_BLOCK):
            keys = slice(start, min(start + KEYS_PER_BLOCK, positions.count))
            queries = torch.nonzero(attends[:, keys].any(1)).flatten()
            if len(queries):
                first, last = int(queries[0]), int(queries[-1])
                in_a_row = last - first == len(queries) - 1
                yield slice(first, last + 1) if in_a_row else queries, keys

    def read_heads(
        self, activation: Float[Tensor, "batch position d_in"], positions: Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What queries read at the output positions, and keys and values of every key-value head at all positions."""
        read = activation if self.normalisation is None else self.normalisation(activation)
        q = split_heads(positions.at_queries(read), self.W_Q)
        k, v = (split_heads(read, weight[:: self.group]) for weight in (self.W_K, self.W_V))
        return q, k, v

    def project(
        self, activation: Float[Tensor, "batch position d_in"], positions: Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries at the output positions, keys and values at all positions; the latter of every key-value head."""
        q, k, v = self.read_heads(activation, positions)
        return self.prepared(q, k, v, activation[..., -1], positions)

    def prepared(
        self,
        q: Float[Tensor, "batch head query d_head"],
        k: Float[Tensor, "batch key_value_head key d_head"],
        v: Float[Tensor, "batch key_value_head key d_value"],
        constant: Float[Tensor, "batch key"],
        positions: Positions,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What was read, as scores and values are made of it."""
        q = prepared(q, positions.at_queries(constant), self.queries, self.waves(positions.queries, q))
        return q, prepared(k, constant, self.keys, self.waves(positions.keys, k)), v

    def for_heads(
        self, of_key_values: Float[Tensor, "batch key_value_head position n"]
    ) -> Float[Tensor, "batch head position n"]:
        """What heads that share keys or values share."""
        return of_key_values if self.group == 1 else of_key_values.repeat_interleave(self.group, 1)

    def scores(
        self, q: Float[Tensor, "batch head query d_head"], k: Float[Tensor, "batch head key d_head"]
    ) -> Float[Tensor, "batch head query key"]:
        """Before what positions add to them."""
        scores = (q / self.scale) @ k.transpose(-1, -2)
        return scores if self.soft_cap is None else soft_capped(self.soft_cap, scores)

    def attended(
        self,
        q: Float[Tensor, "batch head query d_head"],
        k: Float[Tensor, "batch key_value_head key d_head"],
        v: Float[Tensor, "batch key_value_head key d_value"],
        positions: Positions,
    ) -> Float[Tensor, "batch query head_and_d_value"]:
        """What all heads attend to, from what `prepared` gives."""
        k, v = self.for_heads(k), self.for_heads(v)
        if torch.is_grad_enabled() or self.soft_cap is not None:
            z = (self.scores(q, k) + self.added_to_scores(positions)).softmax(-1) @ v
        else:
            # Three times as fast, but its derivative cannot be batched over output features.
            added = self.attends(positions) if self.slopes is None else self.added_to_scores(positions).to(q)
            z = scaled_dot_product_attention(q, k, v, added, scale=1 / self.scale)
        return z.transpose(1, 2).flatten(2)

    def __call__(self, activation: Tensor, positions: Positions) -> Tensor:
        return self.attended(*self.project(activation, positions), positions) @ self.write_weight

    def shape(self, positions: Positions) -> AttentionShape:
        """What its operations depend on."""
        blocks = [
            (len(positions.queries[queries]), keys.stop - keys.start) for queries, keys in self.key_blocks(positions)
        ]
        weights, terms = (self.W_Q, self.W_K, self.W_V), 0
        if self.normalisation is not None:
            width = self.normalisation.width
            terms = 2 if any(weight[:, width:].any() for weight in weights) else 1
        return AttentionShape(
            self.W_Q.shape[1],
            self.W_O.shape[2],
            len(self.W_Q),
            len(self.W_Q) // self.group,
            self.W_Q.shape[2],
            self.W_V.shape[2],
            0 if self.rotary is None else len(self.rotary.frequencies),
            terms,
            positions.count,
            len(positions.queries),
            sum(n_queries * n_keys for n_queries, n_keys in blocks),
            sum(n_queries for n_queries, _ in blocks),
            self.turns_alike,
            sum(one is not None and one.together for one in (self.queries, self.keys)),
        )

    def forward_operations(self, positions: Positions) -> int:
        return self.shape(positions).forward()

    def between_operations(self, positions: Positions) -> int:
        return self.shape(positions).attending()

    @property
    def turns_alike(self) -> bool:
        """Whether positions alone turn queries and keys, the same for all inputs, and scores are their products."""
        return self.queries is None and self.keys is None and self.soft_cap is None

    @property
    def read_normalisation(self) -> Normalisation | None:
        """In front of all heads."""
        return self.normalisation

    @property
    def read_weight(self) -> Float[Tensor, "d_in read"]:
        """Of queries, keys and values side by side."""
        weights = (self.W_Q, self.W_K[:: self.group], self.W_V[:: self.group])
        return torch.cat([of_heads(weight) for weight in weights], dim=1)

    def between(
        self,
        read: Float[Tensor, "batch position read"],
        constant: Float[Tensor, "batch position"],
        positions: Positions,
    ) -> Float[Tensor, "batch query head_and_d_value"]:
        """What all heads attend to, from what `read_weight` reads."""
        weights = (self.W_Q, self.W_K[:: self.group], self.W_V[:: self.group])
        parts = read.split([len(weight) * weight.shape[-1] for weight in weights], dim=-1)
        q, k, v = (part.unflatten(-1, (len(weight), -1)) for part, weight in zip(parts, weights, strict=True))
        q, k, v = (heads.transpose(1, 2) for heads in (positions.at_queries(q), k, v))
        return self.attended(*self.prepared(q, k, v, constant, positions), positions)

    @property
    def write_weight(self) -> Float[Tensor, "head_and_d_value d_out"]:
        """Of all heads."""
        return self.W_O.flatten(0, 1)
