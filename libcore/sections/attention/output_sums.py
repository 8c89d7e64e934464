"""The Jacobian Gram of attention whose output is normalised (symbols as in `normalised_output.py` and `jacobian.py`).

    J_ts = T'_ts O - sum_p α_p,ts^T ρ_p,t + δ_ts e^T β_t,    α_p,ts = T'_ts μ_p,t^T,

`p` the points of the path. `sum T' O O^T T'^T` is attention's own sum with scaled rows. What is left of `J J^T` is

    sum_p (α_p^T ε_p + ε_p^T α_p),    ε_p,ts = T'_ts (1/2 sum_q (ρ_p ρ_q) μ_q - O ρ_p)_t^T,

products of a vector for each pair of positions, block by block; and the constant coordinate's row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.gram import AttentionJacobianSums
from libcore.sections.attention.jacobian import attention_parts
from libcore.sections.attention.pairs import PairBlock
from libcore.sections.attention.parts import AttentionParts, OwnPosition, OwnTerm
from libcore.sections.branch import DenseJacobian, JacobianSums, Positions
from libcore.streams import float64_zeros


@dataclass(frozen=True)
class OutputAt:
    """The normalisation at one point of the path; `beta` times the point's weight."""

    tau: Float[Tensor, "batch query"]
    mu: Float[Tensor, "head batch query d_value"]
    rho: Float[Tensor, "batch query feature_out"]
    beta: Float[Tensor, "batch query feature_out"]


class NormalisedAttentionSums(JacobianSums):
    """Attention's own, with scaled rows, and what the scale's move takes from them.

    Args:
        attention: that writes `gain * m_c`.
        output_at: from an activation, positions and a point's weight.
    """

    def __init__(
        self,
        attention: Attention,
        output_at: Callable[[Tensor, Positions, float], OutputAt],
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> None:
        self.attention, self.output_at, self.quadrature = attention, output_at, quadrature
        self.scaled_rows = AttentionJacobianSums(attention, next_basis, quadrature)
        d_in, n_out = self.scaled_rows.W_Q.shape[1], next_basis.n_features
        self.alpha_epsilon = float64_zeros(d_in, d_in, like=next_basis.to_basis)
        self.with_constant = float64_zeros(d_in, like=next_basis.to_basis)
        self.own_position = float64_zeros(d_in, n_out, like=next_basis.to_basis)

    def add(self, activation: Float[Tensor, "batch position d_in"], positions: Positions) -> DenseJacobian:
        outputs = [self.output_at(alpha * activation, positions, weight) for alpha, weight in self.quadrature]
        parts = with_scaled_rows(
            attention_parts(self.attention, activation, positions, self.quadrature), [one.tau for one in outputs]
        )
        scaled_rows = self.scaled_rows.add_parts(parts, positions)
        mu, rho = at_their_heads([one.mu for one in outputs]), torch.stack([one.rho for one in outputs])
        beta = torch.stack([one.beta for one in outputs]).sum(0)
        sums = self.scaled_rows
        rows = RowsAlong(parts, OwnPosition(parts, positions), sums.W_Q, sums.W_K, sums.W_V)
        self._add_pairs(rows, mu, rho, positions)
        own_alpha = torch.stack([rows.own(x) for x in mu])
        own_written = rows.own(torch.einsum("hdo,bto->hbtd", sums.O, beta))
        self._add_constant(own_written - torch.einsum("pbti,pbto,bto->bti", own_alpha, rho, beta), beta)
        taken = torch.einsum("pbti,pbto->bio", own_alpha, rho)
        self.own_position -= taken.sum(0)
        self.own_position[-1] += beta.sum((0, 1))

        def dense() -> Float[Tensor, "sample d_in feature_out"]:
            jacobian = scaled_rows() - torch.einsum("pbti,pbto->btio", own_alpha, rho).flatten(0, 1)
            jacobian[:, -1] += beta.flatten(0, 1)
            return jacobian

        return dense

    def _add_pairs(
        self,
        rows: RowsAlong,
        mu: Float[Tensor, "point head batch query d_value"],
        rho: Float[Tensor, "point batch query feature_out"],
        positions: Positions,
    ) -> None:
        """`sum_p α_p^T ε_p`."""
        overlaps = torch.einsum("pbto,qbto->pqbt", rho, rho)
        epsilon = torch.einsum("pqbt,qhbtd->phbtd", overlaps, mu) / 2
        epsilon -= torch.einsum("hdo,pbto->phbtd", self.scaled_rows.O, rho)
        for queries, keys in self.attention.key_blocks(positions):
            block = PairBlock.of(rows.parts, queries, keys)
            for along_alpha, along_epsilon in zip(mu, epsilon, strict=True):
                alpha = rows.of_block(block, along_alpha).flatten(0, 2)
                self.alpha_epsilon += alpha.T @ rows.of_block(block, along_epsilon).flatten(0, 2)

    def _add_constant(
        self, own: Float[Tensor, "batch query d_in"], beta: Float[Tensor, "batch query feature_out"]
    ) -> None:
        """`sum_t (J_tt without e^T β_t) β_t^T`, and half of `|β_t|²`."""
        self.with_constant += own.sum((0, 1))
        self.with_constant[-1] += beta.square().sum() / 2

    def gram(self) -> Float[Tensor, "d_in d_in"]:
        half = self.alpha_epsilon.clone()
        half[-1] += self.with_constant
        return self.scaled_rows.gram() + half + half.T

    def transfer(self) -> Float[Tensor, "d_in feature_out"]:
        return self.scaled_rows.transfer() + self.own_position


class RowsAlong:
    """`T_ts x_t^T` for vectors `x` of all heads' values."""

    def __init__(
        self,
        parts: AttentionParts,
        own: OwnPosition,
        W_Q: Float[Tensor, "head d_in d_head"],
        W_K: Float[Tensor, "head d_in d_head"],
        W_V: Float[Tensor, "head d_in d_value"],
    ) -> None:
        self.parts, self.at_own = parts, own
        self.W_Q, self.W_K, self.W_V = W_Q, W_K, W_V
        self.terms = [(term, OwnTerm(term, parts, own)) for term in parts.all_terms]

    def own(self, x: Float[Tensor, "head batch query d_value"]) -> Float[Tensor, "batch query d_in"]:
        """Where a position reads itself."""
        own = self.at_own
        along = self.through_query(x) + torch.einsum("hid,hbtd->bti", self.W_V, own.a[..., None] * x)
        along = along + torch.einsum("hie,hbte->bti", self.W_K, own.q * (own.u * x).sum(-1, keepdim=True))
        for _, at_own in self.terms:
            along = along + at_own.y * ((at_own.p - at_own.through_query) * x).sum((0, -1))[..., None]
        return along

    def through_query(self, x: Float[Tensor, "head batch query d_value"]) -> Float[Tensor, "batch query d_in"]:
        """The part of that through the query, which pairs do not have."""
        along = torch.einsum("hie,hbte->bti", self.W_Q, (self.at_own.X @ x[..., None]).squeeze(-1))
        for _, at_own in self.terms:
            along = along + at_own.y * (at_own.through_query * x).sum((0, -1))[..., None]
        return along

    def of_block(
        self, block: PairBlock, x: Float[Tensor, "head batch query d_value"]
    ) -> Float[Tensor, "batch some_query some_key d_in"]:
        """Of a block of pairs."""
        at_queries = x[:, :, block.queries]
        v_x = at_queries @ block.v.mT - (block.z * at_queries).sum(-1, keepdim=True)
        u_x, weighted_u_x = (pairs * v_x / self.parts.scale for pairs in (block.b, block.weighted_b))
        rows = block.weighted_a.permute(1, 2, 3, 0) @ torch.einsum("hid,hbtd->bthi", self.W_V, at_queries)
        of_keys = (weighted_u_x[..., None] * block.q_by_key).permute(1, 2, 3, 0, 4).flatten(-2)
        rows += of_keys @ self.W_K.mT.flatten(0, 1)
        for term, _ in self.terms:
            v_n, k_n, c = (part[:, :, block.keys] for part in (term.v, term.k, term.c))
            p_x = c[:, :, None] * (block.a * (at_queries @ v_n.mT) + (block.q @ k_n.mT) * u_x)
            rows += p_x.sum(0)[..., None] * term.y[:, None, block.keys]
        queries = torch.arange(x.shape[2], device=x.device)[block.queries]
        column = self.at_own.column[queries]
        inside = torch.nonzero((column >= block.keys.start) & (column < block.keys.stop)).flatten()
        rows[:, inside, column[inside] - block.keys.start] += self.through_query(x)[:, queries[inside]]
        return rows


def with_scaled_rows(parts: AttentionParts, scales: Sequence[Float[Tensor, "batch query"]]) -> AttentionParts:
    """Every output position's rows, and those at every point of the path, times a number."""
    n_heads = len(parts.a) // len(scales)
    scale = torch.stack(list(scales)).repeat_interleave(n_heads, 0)[..., None]
    a = parts.a * scale
    return replace(parts, a=a, b=a if parts.b is parts.a else parts.b * scale)


def at_their_heads(
    of_points: Sequence[Float[Tensor, "head batch query d_value"]],
) -> Float[Tensor, "point all_heads batch query d_value"]:
    """Of every point, zero at the heads of all others."""
    stacked = torch.stack(list(of_points))
    n_points, n_heads = stacked.shape[:2]
    apart = stacked.new_zeros(n_points, *stacked.shape)
    every = torch.arange(n_points, device=stacked.device)
    apart[every, every] = stacked
    return apart.reshape(n_points, n_points * n_heads, *stacked.shape[2:])
