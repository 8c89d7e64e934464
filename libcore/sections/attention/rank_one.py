"""The rank-one terms of a normalised attention branch's Jacobian, summed (symbols as in `jacobian.py`).

    sum_n y_n,s^T psi_n,ts,    psi_n,ts = sum_h p_nh,ts O^h,
    p_nh,ts = c_nh,s (v_n,s a_h,ts + (q_h,t k_n,s^T) u_h,ts + δ_ts q_n,t X_h,t)

Their products with the Jacobian's rows need `pi_g = sum_h Ω_gh p_h`, and of it only sums over queries,

    by_value_g,s = sum_t a_g,ts pi_g,ts,    by_key_g,s = sum_t (pi_g,ts u_g,ts^T) q_g,t,

which the products among rank-one terms are made of too: `sum_t psi_m psi_n^T = sum_g c_mg (v_m by_value_g^T +
k_m by_key_g^T)`, where positions differ. So no array has output features, and a pair of heads a few numbers per pair of
positions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.pairs import PairBlock
from libcore.sections.attention.parts import AttentionParts, OwnPosition, OwnTerm, RankOneTerm
from libcore.streams import float64_zeros


class RankOneChunk:
    """One term on one chunk of inputs: `by_value` and `by_key` as blocks of pairs come in.

    Attributes:
        own: `p` where a position reads itself.
        own_y: `y` there.
        own_X: the part of `own` through the query.
    """

    def __init__(self, term: RankOneTerm, parts: AttentionParts, own: OwnPosition, Omega: Tensor, scale: float) -> None:
        self.term, self.Omega, self.scale = term, Omega, scale
        at_own = OwnTerm(term, parts, own)
        self.own_y, self.own_X, self.own = at_own.y, at_own.through_query, at_own.p
        column, a, u = own.column, at_own.a, at_own.u
        through_query = self.through_Omega(self.own_X)
        self.by_value = torch.zeros_like(parts.v)
        self.by_value[:, :, column] = a * through_query
        self.by_key = torch.zeros_like(parts.k)
        self.by_key[:, :, column] = (u * through_query).sum(-1, keepdim=True) * parts.q

    def through_Omega(self, p: Float[Tensor, "head batch some d_value"]) -> Float[Tensor, "head batch some d_value"]:
        """`sum_h Ω_gh p_h`."""
        n_heads, _, d_value, _ = self.Omega.shape
        flat = p.permute(1, 2, 0, 3).flatten(2) @ self.Omega.permute(1, 3, 0, 2).flatten(0, 1).flatten(1)
        return flat.unflatten(-1, (n_heads, d_value)).permute(2, 0, 1, 3)

    def begin(self, block: PairBlock) -> None:
        """Before the heads of a block of position pairs: what they all read."""
        keys = slice(None), slice(None), block.keys
        self.v, self.c_v = self.term.v[keys], self.term.c[keys][..., None] * self.term.v[keys]
        self.q_k = (block.q / self.scale) @ self.term.k[keys].mT
        if block.b is not block.a:  # in units of `a`, which is nothing only where `b` is
            self.q_k *= torch.where(block.a > 0, block.b / block.a, 0.0)
        self.c_a = block.a * self.term.c[keys][:, :, None]
        self.c_a_q_k = self.c_a * self.q_k
        by_key = block.a.permute(1, 3, 0, 2).contiguous()
        self.a_a = (by_key @ by_key.mT).permute(2, 3, 0, 1)[..., None]
        self.z_and_one = torch.cat([block.z, torch.ones_like(block.z[..., :1])], -1)

    def add(self, block: PairBlock, g: int, overlap: Float[Tensor, "head batch query key"]) -> None:
        """Take head `g` with all others in; what a query does at its own position apart."""
        Omega = self.Omega[g]
        along = overlap * self.q_k
        Omega_v = (self.v.flatten(1, 2) @ Omega.mT).view_as(self.v)
        of_keys = torch.cat([-Omega_v, (block.v[g] * Omega_v).sum(-1, keepdim=True)], -1)
        z_and_one = self.z_and_one[g].expand(len(Omega), -1, -1, -1)
        along.flatten(0, 1).baddbmm_(z_and_one.flatten(0, 1), of_keys.mT.flatten(0, 1))
        u_pi = along.mul_(self.c_a).sum(0).mul_(block.b[g]).div_(self.scale)
        self.by_key[g, :, block.keys] += u_pi.mT @ block.q[g]
        a_a_q_k = torch.mul(block.a[g], self.c_a_q_k, out=along)
        summed = (self.z_and_one.mT @ a_a_q_k).mT
        p = self.c_v * self.a_a[g] + block.v * summed[..., -1:] - summed[..., :-1]
        self.by_value[g, :, block.keys] += (p.flatten(1, 2) @ Omega.mT).view_as(p).sum(0)


class RankOneSums:
    """Of `y psi` with itself, with the Jacobian's other rows, and within a position, over chunks."""

    def __init__(self, Omega: Float[Tensor, "head head d_value d_value"], d_in: int, d_head: int, scale: float) -> None:
        self.Omega, self.scale = Omega, scale
        n_heads, _, d_value, _ = Omega.shape
        self.with_values = float64_zeros(n_heads, d_value, d_in, like=Omega)
        self.with_keys = float64_zeros(n_heads, d_head, d_in, like=Omega)
        self.with_queries = float64_zeros(n_heads, d_head, d_in, like=Omega)
        self.own = float64_zeros(d_in, d_in, like=Omega)
        self.own_position = float64_zeros(n_heads, d_in, d_value, like=Omega)

    def begin(self, parts: AttentionParts, own: OwnPosition) -> list[RankOneChunk]:
        """The terms of a chunk, before its pairs."""
        return [RankOneChunk(term, parts, own, self.Omega, self.scale) for term in parts.all_terms]

    def add(self, terms: list[RankOneChunk], parts: AttentionParts, own: OwnPosition) -> None:
        """Take a chunk in, all of whose pairs the terms have."""
        w = parts.w[..., None]
        for of in terms:
            y, pi = of.term.y.flatten(0, 1), of.through_Omega(of.own)
            own_y = of.own_y.flatten(0, 1)
            self.with_values += (w * of.by_value).flatten(1, 2).mT @ y
            self.with_keys += parts.key_map.pull_back(w * of.by_key).flatten(1, 2).mT @ y
            self.with_queries += (own.X @ pi[..., None]).squeeze(-1).flatten(1, 2).mT @ own_y
            self.own_position += own_y.T @ of.own.flatten(1, 2)
            for other in terms:
                c, k, v = other.term.c, other.term.k, other.term.v
                overlap = (c * ((v * of.by_value).sum(-1) + (k * of.by_key).sum(-1))).sum(0)
                at_own = (other.own_X * pi).sum((0, -1))
                self.own += other.term.y.flatten(0, 1).T @ (overlap.flatten()[:, None] * y)
                self.own += other.own_y.flatten(0, 1).T @ (at_own.flatten()[:, None] * own_y)

    def cross(self, W_Q: Tensor, W_K: Tensor, W_V: Tensor) -> Float[Tensor, "d_in d_in"]:
        """`sum (value, key and query rows) (y psi)^T`."""
        with_rows = W_Q @ self.with_queries + W_K @ self.with_keys + W_V @ self.with_values
        return with_rows.sum(0)
