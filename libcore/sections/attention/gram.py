"""An attention branch's Jacobian Gram `sum J J^T` from its parts (METHOD.md eq. 10; symbols as in `jacobian.py`).

    sum_ts J_ts J_ts^T = sum_gh sum_ts T_g,ts Ω_gh T_h,ts^T,    Ω_gh = O^g O^hT

Output features enter through `Ω` alone: `O` is kept in an orthonormal basis of what the heads' outputs span together
(`span`). `T` has a value, a key and a query part, hence six kinds of products, each a sum over position pairs of small
matrices between the coefficients of `W_V`, `W_K` and `W_Q`: value_value, value_key, …; no array is as large as a
Jacobian.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.jacobian import AttentionParts, OwnPosition, attention_parts
from libcore.sections.attention.rank_one import RankOneEffect, RankOneSums
from libcore.sections.branch import DenseJacobian, JacobianSums, Positions
from libcore.streams import float64_zeros

VALUES_IN_CACHE = 2**19
"""Numbers worked on at a time where an intermediate is many times as large as what it comes from."""


class AttentionJacobianSums(JacobianSums):
    """Sums over inputs that `sum J J^T` and `sum J_tt` are made of, by pairs of heads `(g, h)`."""

    def __init__(self, attention: Attention, next_basis: Basis, quadrature: Quadrature) -> None:
        self.attention = attention
        self.quadrature = quadrature
        n_points = len(quadrature.points)
        output = attention.W_O @ next_basis.to_basis
        spanned, triangular = torch.linalg.qr(output.flatten(0, 1).T)
        self.span = spanned.T
        self.O = triangular.T.unflatten(0, output.shape[:2]).repeat(n_points, 1, 1)
        weights = (attention.W_Q, attention.W_K, attention.W_V)
        self.W_Q, self.W_K, self.W_V = (weight.repeat(n_points, 1, 1) for weight in weights)
        n_heads, d_value, _ = self.O.shape
        d_head = self.W_Q.shape[-1]
        self.Omega = torch.einsum("gdr,her->ghde", self.O, self.O)

        def zeros(*shape: int) -> Tensor:
            return float64_zeros(*shape, like=self.O)

        self.value_value = zeros(n_heads, n_heads)
        self.key_key, self.key_query, self.query_query = (zeros(n_heads, n_heads, d_head, d_head) for _ in range(3))
        self.value_key, self.value_query = (zeros(n_heads, n_heads, d_value, d_head) for _ in range(2))
        self.sum_a = zeros(n_heads)
        self.sum_q_u, self.sum_X = zeros(n_heads, d_head, d_value), zeros(n_heads, d_head, d_value)
        self.rank_one = RankOneSums(attention, self.O, self.W_Q, self.W_K, self.W_V)

    def add(self, activation: Float[Tensor, "batch position d_in"], positions: Positions) -> DenseJacobian:
        parts = attention_parts(self.attention, activation, positions, self.quadrature)
        own = OwnPosition(parts, positions, self.attention)
        self._add_own_position(own)
        effects: list[RankOneEffect] = []
        for queries, keys in self.attention.key_blocks(positions):
            pairs = parts.between(queries, keys)
            block = Positions(positions.queries[queries], positions.keys[keys])
            self._add_pairs(pairs, block)
            effects += self.rank_one.add(pairs, block, queries, keys)
        terms = self.rank_one.add_own_position(parts, own, effects)

        def dense() -> Float[Tensor, "sample d_in feature_out"]:
            jacobian = torch.einsum("btg,gid,gdr->btir", own.a, self.W_V, self.O)
            through_keys = torch.einsum("gie,btge,btgd,gdr->btir", self.W_K, own.q, own.u, self.O)
            through_queries = torch.einsum("gie,btged,gdr->btir", self.W_Q, own.X, self.O)
            jacobian = jacobian + through_keys + through_queries
            for y, psi in terms:
                jacobian = jacobian + y[..., None] * psi[..., None, :]
            return jacobian.flatten(0, 1) @ self.span

        return dense

    def _add_pairs(self, parts: AttentionParts, positions: Positions) -> None:
        """Value and key rows, of all position pairs; head by head, so that arrays stay a few numbers per pair."""
        a = (parts.a * parts.w[:, :, None, :]).transpose(0, 1).contiguous()
        q, v, z = (part.transpose(0, 1).contiguous() for part in (parts.q, parts.v, parts.z))
        for g in range(len(a)):
            a_a = a[g] * a
            self.value_value[g] += a_a.sum((1, 2, 3))
            # v_s belongs to the key, so the queries that attend to it are summed first; z_t belongs to the query.
            sum_q = self.attention.turn(a_a.transpose(-1, -2) @ q, -positions.keys)
            v_q = v.flatten(1, 2).transpose(-1, -2) @ sum_q.flatten(1, 2)
            turned = self.attention.turned_back_by_keys(q, a_a, positions)
            v_q -= z.flatten(1, 2).transpose(-1, -2) @ turned.flatten(1, 2)
            self.value_key[g] += v_q / self.attention.scale
            u_u = a_a[g:] * self._overlap(g, v, z) / self.attention.scale**2
            self.key_key[g, g:] += self._sum_q_q(g, q, u_u, positions)

    def _overlap(self, g: int, v: Tensor, z: Tensor) -> Float[Tensor, "head batch query key"]:
        """`(v_gs - z_gt) Ω_gh (v_hs - z_ht)^T` for every head `h >= g`."""
        to_others = self.Omega[g, g:, None]
        v_Omega, z_Omega = v[g] @ to_others, z[g] @ to_others
        v, z = v[g:], z[g:]
        overlap = (v_Omega * v).sum(-1)[:, :, None, :] + (z_Omega * z).sum(-1)[..., None]
        return overlap - z_Omega @ v.transpose(-1, -2) - z @ v_Omega.transpose(-1, -2)

    def _sum_q_q(
        self, g: int, q: Tensor, pairs: Float[Tensor, "head batch query key"], positions: Positions
    ) -> Float[Tensor, "head d_head d_head"]:
        """`sum pairs_ts q_gt^T q_ht`, both queries turned back by the key's position, for every head `h >= g`."""
        q_q = (q[g][..., :, None] * q[g:][..., None, :]).flatten(-2)
        if self.attention.rotary is None:
            summed = pairs.sum(-1).flatten(1)[:, None] @ q_q.flatten(1, 2)
            return summed.unflatten(-1, (q.shape[-1], -1)).squeeze(1)
        by_key = (pairs.transpose(-1, -2) @ q_q).sum(1).unflatten(-1, (q.shape[-1], -1))
        turned = self.attention.turn(by_key.transpose(1, 2), -positions.keys)
        return self.attention.turn(turned.transpose(1, 3), -positions.keys).transpose(1, 3).sum(2)

    def _add_own_position(self, own: OwnPosition) -> None:
        """Query rows, what they share with value and key rows, and the transfer: the pairs `s = t`."""
        X, a, q, u = own.X.flatten(0, 1), own.a.flatten(0, 1), own.q.flatten(0, 1), own.u.flatten(0, 1)
        heads = X.shape[1:3]
        size = max(1, VALUES_IN_CACHE // (heads.numel() * self.O.shape[-1]))
        for some_X, some_q, some_u in zip(X.split(size), q.split(size), u.split(size), strict=True):
            X_O = (some_X.transpose(0, 1).flatten(1, 2) @ self.O).unflatten(1, some_X.shape[::2][:2])
            rows = X_O.transpose(1, 2).flatten(0, 1).flatten(1)
            self.query_query += (rows @ rows.T).unflatten(0, heads).unflatten(2, heads).transpose(1, 2)
            by_sample = rows.unflatten(1, (len(some_X), -1)).permute(1, 2, 0)
            u_O_X = (some_u.transpose(0, 1) @ self.O).transpose(0, 1) @ by_sample
            key_query = some_q.permute(1, 2, 0) @ u_O_X.transpose(0, 1)
            self.key_query += key_query.unflatten(2, heads).transpose(1, 2)
        self.value_query += torch.einsum("ng,nhfc->ghcf", a, X)
        self.sum_a += a.sum(0)
        self.sum_q_u += torch.einsum("nge,ngd->ged", q, u)
        self.sum_X += X.sum(0)

    def transfer(self) -> Float[Tensor, "d_in feature_out"]:
        T = self.sum_a[:, None, None] * self.W_V + self.W_K @ self.sum_q_u + self.W_Q @ self.sum_X
        return (torch.einsum("gid,gdr->ir", T, self.O) + self.rank_one.own_position) @ self.span

    def gram(self) -> Float[Tensor, "d_in d_in"]:
        values = self.W_V @ self.O
        own = torch.einsum("gh,gir,hjr->ij", self.value_value, values, values)
        upper = torch.einsum("gie,ghef,hjf->ij", self.W_K, self.key_key, self.W_K)
        diagonal = torch.einsum("gie,gef,gjf->ij", self.W_K, self.key_key.diagonal().permute(2, 0, 1), self.W_K)
        own = own + upper + upper.T - diagonal
        own = own + torch.einsum("gie,ghef,hjf->ij", self.W_Q, self.query_query, self.W_Q)
        mixed = torch.einsum("gic,ghcd,ghde,hje->ij", self.W_V, self.Omega, self.value_key, self.W_K)
        mixed = mixed + torch.einsum("gic,ghcd,ghde,hje->ij", self.W_V, self.Omega, self.value_query, self.W_Q)
        mixed = mixed + torch.einsum("gie,ghef,hjf->ij", self.W_K, self.key_query, self.W_Q)
        mixed = mixed + self.rank_one.cross()
        return own + mixed + mixed.T + self.rank_one.own
