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
from libcore.sections.branch import Attributions, Branch, JacobianSums


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
        n_heads, d_in, d_head = self.W_Q.shape
        d_value, heads = self.W_V.shape[-1], n_points * n_heads
        rank = min(n_out, n_heads * d_value)
        pairs = queries * min(positions, KEYS_PER_BLOCK) * (6 * heads + 4 * rank) + 2 * queries * positions * heads
        products = (queries + positions) * heads * (d_head * (d_head + 2 * d_value) + 3 * rank)
        products += queries * heads**2 * d_head * d_value
        return pairs + products + positions * 3 * d_in

    def attributions(self, basis: Basis, next_basis: Basis, quadrature: Quadrature) -> Attributions:
        return attention_attributions(self.to(dtype=torch.float64), basis, next_basis, quadrature)

    def attribution_values(self, positions: int, queries: int, n_in: int, n_out: int) -> int:
        n_heads, _, d_head = self.W_Q.shape
        d_value = self.W_V.shape[-1]
        per_head = positions * n_in * (d_head + d_value) + 2 * queries * positions * n_in + queries * n_in * d_value
        return 2 * per_head + queries * n_in * (n_heads * d_value + n_out) + 4 * n_heads * queries * positions
