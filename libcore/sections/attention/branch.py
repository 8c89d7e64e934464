"""Attention as a branch beside the residual stream, with its closed forms (METHOD.md eq. 10)."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import KEYS_PER_BLOCK, Attention
from libcore.sections.attention.attributions import attention_attributions
from libcore.sections.attention.gram import AttentionJacobianSums
from libcore.sections.attention.operations import pairs_of_rows
from libcore.sections.attention.query_rows import few_keys
from libcore.sections.branch import Attributions, Branch, JacobianSums, Positions
from libcore.sections.operations import Operations


class AttentionBranch(Attention, Branch):
    """`Attention`; the numbers that its closed forms keep alive decide how large chunks are."""

    @property
    def writes(self) -> Tensor:
        return self.W_O

    def followed_by(self, weight: Tensor) -> AttentionBranch:
        branch = copy(self)
        branch.W_O = self.W_O @ weight
        return branch

    def forward_values(self, positions: int, queries: int) -> int:
        n_heads, d_in, d_head = self.W_Q.shape
        d_value = self.W_V.shape[-1]
        of_heads = 2 * n_heads * (queries * (d_head + d_value) + positions * (d_head + d_value) + queries * positions)
        return positions * d_in * (1 if self.normalisation is None else 3) + of_heads

    def jacobian_sums(self, next_basis: Basis, quadrature: Quadrature) -> JacobianSums:
        return AttentionJacobianSums(self.to(dtype=torch.float64), next_basis.double(), quadrature)

    def jacobian_values(self, positions: int, queries: int, n_out: int, n_points: int) -> int:
        _, d_in, d_head = self.W_Q.shape
        d_value, heads = self.W_V.shape[-1], n_points * len(self.W_Q)
        in_block = min(positions, KEYS_PER_BLOCK)
        pairs = queries * (3 * positions + 8 * in_block) * heads
        products = (queries + positions) * heads * 5 * (d_head + d_value) + positions * 3 * d_in
        if self.turns_alike and few_keys(positions, d_head):
            products += 4 * queries * (positions - 1) * heads * (d_head + d_value)
            products += 2 * queries * (positions - 1) ** 2 * heads * max(d_head, d_value)
        if self.normalisation is not None or not (self.turns_alike and few_keys(positions, d_head)):
            products += (4 * queries + (positions if queries >= positions else 0)) * heads * d_head * d_value
        per_pair_of_heads = 3 * queries * in_block + (queries + in_block) * 8 * max(d_head, d_value)
        if self.turns_alike:
            per_pair_of_heads += 0 if self.rotary is None else (queries + in_block) * d_head**2
        else:
            products += 4 * queries * in_block * heads * d_head
        return pairs + products + heads * per_pair_of_heads

    def attributions(
        self, basis: Basis, next_basis: Basis, quadrature: Quadrature, positions: Positions
    ) -> Attributions:
        return attention_attributions(self.to(dtype=torch.float64), basis, next_basis, quadrature, positions)

    def attribution_values(self, positions: int, queries: int, n_in: int, n_points: int) -> int:
        n_heads, _, d_head = self.W_Q.shape
        d_value = self.W_V.shape[-1]
        turned = 0 if self.rotary is None else 2 * n_heads // self.group * (d_head + 1) * positions * n_in
        if self.keys is not None:
            turned = 5 * n_heads // self.group * (d_head + 1) * positions * n_in
        pairs = 2 * n_heads * queries * positions
        heads = (queries + positions) * n_heads * 4 * (d_head + d_value)
        heads += (2 * queries + (positions if queries >= positions else 0)) * n_heads * d_head * d_value
        return n_points * (turned + pairs + heads + 9 * positions * n_in)

    def attribution_values_per_query(self, positions: int, n_in: int) -> int:
        n_heads, d_value = len(self.W_Q), self.W_V.shape[-1]
        dz = 3 * n_heads * d_value * n_in
        if self.rotary is None and self.keys is None:
            return dz + n_heads * positions * (2 * d_value + 2)
        return dz + n_heads * (positions + 3 * n_in + min(positions, KEYS_PER_BLOCK) * (d_value + n_in))

    def gram_operations(self, positions: Positions, n_out: int, n_points: int) -> Operations:
        return self.shape(positions).gram(n_out, few_keys(positions.count, self.W_Q.shape[-1]), n_points)

    def dense_operations(self, positions: Positions, n_out: int, n_points: int) -> int:
        return self.shape(positions).dense(n_out, n_points)

    def gram_sums(self, positions: Positions, n_out: int, n_points: int) -> int:
        return self.shape(positions).accumulated(n_out, n_points)

    def attribution_operations(
        self, positions: Positions, n_in: int, n_out: int, n_points: int, queries_at_a_time: int
    ) -> Operations:
        pairs = pairs_of_rows(self.attends(positions), queries_at_a_time)
        return self.shape(positions).attributions(n_in, n_out, pairs, n_points)

    def attribution_weights(self, positions: Positions, n_in: int, n_out: int) -> int:
        return self.shape(positions).attribution_weights(n_in, n_out)
