"""An attention branch's Jacobian Gram `sum J J^T` from its parts (METHOD.md eq. 10; symbols as in `jacobian.py`).

    sum_ts J_ts J_ts^T = sum_gh sum_ts T_g,ts Ω_gh T_h,ts^T,    Ω_gh = O^g O^hT

Output features enter through `Ω` alone. `T` has a value, a key and a query part, hence six kinds of products, each a
sum over position pairs of small matrices between the coefficients of `W_V`, `W_K` and `W_Q`: value_value, value_key, …;
no array is as large as a Jacobian. What value and key rows share is in `pairs.py`, query rows are in `query_rows.py`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.jacobian import attention_parts
from libcore.sections.attention.pairs import PairBlock, PairSums
from libcore.sections.attention.parts import AttentionParts, OwnPosition
from libcore.sections.attention.query_rows import QueryRowSums
from libcore.sections.attention.rank_one import RankOneChunk, RankOneSums
from libcore.sections.branch import DenseJacobian, JacobianSums, Positions
from libcore.streams import float64_zeros


class AttentionJacobianSums(JacobianSums):
    """Sums over inputs that `sum J J^T` and `sum J_tt` are made of, by pairs of heads `(g, h)`."""

    def __init__(self, attention: Attention, next_basis: Basis, quadrature: Quadrature) -> None:
        self.attention = attention
        self.quadrature = quadrature
        n_points = len(quadrature.points)
        self.O = (attention.W_O @ next_basis.to_basis).repeat(n_points, 1, 1)
        weights = (attention.W_Q, attention.W_K, attention.W_V)
        self.W_Q, self.W_K, self.W_V = (weight.repeat(n_points, 1, 1) for weight in weights)
        n_heads, d_value, _ = self.O.shape
        d_head = self.W_Q.shape[-1]
        flat = self.O.flatten(0, 1)
        self.Omega = (flat @ flat.T).unflatten(0, (n_heads, d_value)).unflatten(2, (n_heads, d_value)).transpose(1, 2)

        self.sum_a = float64_zeros(n_heads, like=self.O)
        self.sum_q_u = float64_zeros(n_heads, d_head, d_value, like=self.O)
        self.pairs = PairSums(self.Omega, d_head, attention.scale)
        self.query_rows = QueryRowSums(self.Omega, d_head)
        self.rank_one = RankOneSums(self.Omega, self.W_Q.shape[1], d_head, attention.scale)

    def add(self, activation: Float[Tensor, "batch position d_in"], positions: Positions) -> DenseJacobian:
        return self.add_parts(attention_parts(self.attention, activation, positions, self.quadrature), positions)

    def add_parts(self, parts: AttentionParts, positions: Positions) -> DenseJacobian:
        """Take a chunk in by its parts."""
        own = OwnPosition(parts, positions)
        self.sum_a += own.a.flatten(1).sum(1)
        self.sum_q_u += own.q.flatten(1, 2).mT @ own.u.flatten(1, 2)
        self.query_rows.add(parts, own, positions)
        terms = self.rank_one.begin(parts, own)
        self.pairs.begin(parts.key_map.waves)
        for queries, keys in self.attention.key_blocks(positions):
            self._add_pairs(PairBlock.of(parts, queries, keys), terms)
        self.rank_one.add(terms, parts, own)

        def dense() -> Float[Tensor, "sample d_in feature_out"]:
            jacobian = torch.einsum("gbt,gid,gdr->btir", own.a, self.W_V, self.O)
            through_keys = torch.einsum("gie,gbte,gbtd,gdr->btir", self.W_K, own.q, own.u, self.O)
            through_queries = torch.einsum("gie,gbted,gdr->btir", self.W_Q, own.X, self.O)
            jacobian = jacobian + through_keys + through_queries
            for term in terms:
                psi = torch.einsum("gbtd,gdr->btr", term.own, self.O)
                jacobian = jacobian + term.own_y[..., None] * psi[..., None, :]
            return jacobian.flatten(0, 1)

        return dense

    def _add_pairs(self, block: PairBlock, terms: list[RankOneChunk]) -> None:
        """One head with the others at a time; of what two values share, pairs of positions take most of the time."""
        turned = self.attention.rotary is not None or not block.is_plain
        for term in terms:
            term.begin(block)
        for g in range(len(block.a)):
            if not terms:
                self.pairs.add(block, g, block.overlap(g, slice(g, None), self.Omega) if turned else None)
                continue
            overlap = block.overlap(g, slice(None), self.Omega)
            self.pairs.add(block, g, overlap[g:] if turned else None)
            for term in terms:
                term.add(block, g, overlap)

    def transfer(self) -> Float[Tensor, "d_in feature_out"]:
        T = self.sum_a[:, None, None] * self.W_V + self.W_K @ self.sum_q_u + self.W_Q @ self.query_rows.sum_X
        return torch.einsum("gid,gdr->ir", T + self.rank_one.own_position, self.O)

    def gram(self) -> Float[Tensor, "d_in d_in"]:
        values = self.W_V @ self.O
        value_value = self.pairs.value_value.triu() + self.pairs.value_value.triu(1).T
        own = torch.einsum("gh,gir,hjr->ij", value_value, values, values)
        own = own + of_upper(self.pairs.key_key, self.W_K) + of_upper(self.query_rows.query_query, self.W_Q)
        mixed = torch.einsum("gic,ghcd,ghde,hje->ij", self.W_V, self.Omega, self.pairs.value_key, self.W_K)
        mixed = mixed + torch.einsum(
            "gic,ghcd,ghde,hje->ij", self.W_V, self.Omega, self.query_rows.value_query, self.W_Q
        )
        mixed = mixed + torch.einsum("gie,ghef,hjf->ij", self.W_K, self.query_rows.key_query, self.W_Q)
        mixed = mixed + self.rank_one.cross(self.W_Q, self.W_K, self.W_V)
        return own + mixed + mixed.T + self.rank_one.own


def of_upper(
    sums: Float[Tensor, "head head d_head d_head"], weight: Float[Tensor, "head d_in d_head"]
) -> Float[Tensor, "d_in d_in"]:
    """`sum_gh W^g S_gh W^hT` where only `h >= g` are given, since `S_hg = S_gh^T`."""
    upper = torch.einsum("gie,ghef,hjf->ij", weight, sums, weight)
    diagonal = torch.einsum("gie,gef,gjf->ij", weight, sums.diagonal().permute(2, 0, 1), weight)
    return upper + upper.T - diagonal
