"""The rank-one terms of a normalised attention branch's Jacobian, summed (symbols as in `jacobian.py`).

sum_n y_n,s^T psi_n,ts,    psi_n,ts = sum_h c_nh,s (v_n,s a_h,ts + (q_h,t k_n,s^T) u_h,ts + δ_ts q_n,t X_h,t) O^h
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.sections.attention.attention import Attention
from libcore.sections.attention.jacobian import AttentionParts, OwnPosition, RankOneTerm
from libcore.sections.branch import Positions
from libcore.streams import float64_zeros


@dataclass(frozen=True)
class RankOneEffect:
    """`psi` of one rank-one term where output positions `queries` read themselves as `keys` (rows among all)."""

    term: int
    queries: Int[Tensor, " own"]
    keys: Int[Tensor, " own"]
    psi: Float[Tensor, "batch own rank"]


class RankOneSums:
    """Of `y psi` with itself, with the Jacobian's other rows, and within a position; `O` as the Gram keeps it."""

    def __init__(
        self,
        attention: Attention,
        O: Float[Tensor, "head d_value rank"],  # noqa: E741 - the page's symbol
        W_Q: Float[Tensor, "head d_in d_head"],
        W_K: Float[Tensor, "head d_in d_head"],
        W_V: Float[Tensor, "head d_in d_value"],
    ) -> None:
        self.attention = attention
        self.O, self.W_Q, self.W_K, self.W_V = O, W_Q, W_K, W_V
        n_heads, d_in, d_head = W_Q.shape
        rank = O.shape[-1]
        self.with_values = float64_zeros(n_heads, rank, d_in, like=O)
        self.with_keys = float64_zeros(n_heads, d_head, d_in, like=O)
        self.with_queries = float64_zeros(n_heads, d_head, d_in, like=O)
        self.own = float64_zeros(d_in, d_in, like=O)
        self.own_position = float64_zeros(d_in, rank, like=O)

    def add(self, parts: AttentionParts, positions: Positions, queries: Tensor, keys: Tensor) -> list[RankOneEffect]:
        """Take a block of position pairs in, whose rows among all are `queries` and `keys`."""
        if not parts.terms:
            return []
        v_O, z_O = parts.v @ self.O, parts.z @ self.O
        effects = [self._psi(term, parts, v_O, z_O, positions) for term in parts.terms]
        a = parts.a * parts.w[:, :, None, :]
        for term, psi in zip(parts.terms, effects, strict=True):
            a_psi = torch.einsum("bgts,btsr->bgsr", a, psi)
            self.with_values += torch.einsum("bgsr,bsi->gri", a_psi, term.y)
            v_z_psi = torch.einsum("bgsr,btsr->bgts", v_O, psi) - torch.einsum("bgtr,btsr->bgts", z_O, psi)
            u_psi_q = (a * v_z_psi / self.attention.scale).transpose(-1, -2) @ parts.q
            u_psi_q = self.attention.turn(u_psi_q, -positions.keys)
            self.with_keys += torch.einsum("bgse,bsi->gei", u_psi_q, term.y)
            for other_term, other_psi in zip(parts.terms, effects, strict=True):
                overlap = (psi * other_psi).sum((1, 3))
                self.own += torch.einsum("bsi,bs,bsj->ij", term.y, overlap, other_term.y)
        row, column = positions.own()
        return [
            RankOneEffect(number, queries[row], keys[column], psi[:, row, column]) for number, psi in enumerate(effects)
        ]

    def _psi(
        self,
        term: RankOneTerm,
        parts: AttentionParts,
        v_O: Float[Tensor, "batch head key rank"],
        z_O: Float[Tensor, "batch head query rank"],
        positions: Positions,
    ) -> Float[Tensor, "batch query key rank"]:
        """`psi` of every position pair."""
        c_a = parts.a * term.c[:, :, None, :]
        c_a_q_k = c_a * (parts.q @ term.k.transpose(-1, -2)) / self.attention.scale
        of_keys = torch.cat([term.v @ self.O, v_O], dim=1)
        psi = torch.einsum("bgts,bgsr->btsr", torch.cat([c_a, c_a_q_k], dim=1), of_keys)
        psi -= torch.einsum("bgts,bgtr->btsr", c_a_q_k, z_O)
        row, column = positions.own()
        q_X = torch.einsum("bgte,bgted->bgtd", term.q[:, :, row], parts.X[:, :, row])
        q_X *= term.c[:, :, column, None]
        psi[:, row, column] += torch.einsum("bgtd,gdr->btr", q_X, self.O)
        return psi

    def add_own_position(
        self, parts: AttentionParts, own: OwnPosition, effects: list[RankOneEffect]
    ) -> list[tuple[Tensor, Tensor]]:
        """With the query rows, which are within a position; `y` and `psi` of each term at the output positions."""
        n_queries = own.a.shape[1]
        terms = [
            (
                term.y.new_zeros(len(term.y), n_queries, term.y.shape[-1]),
                term.y.new_zeros(len(term.y), n_queries, self.O.shape[-1]),
            )
            for term in parts.terms
        ]
        for effect in effects:
            y, psi = terms[effect.term]
            y[:, effect.queries] = parts.terms[effect.term].y[:, effect.keys]
            psi[:, effect.queries] = effect.psi
        for y, psi in terms:
            O_psi = torch.einsum("gdr,btr->btgd", self.O, psi)
            X_O_psi = torch.einsum("btged,btgd->btge", own.X, O_psi)
            self.with_queries += torch.einsum("btge,bti->gei", X_O_psi, y)
            self.own_position += torch.einsum("bti,btr->ir", y, psi)
        return terms

    def cross(self) -> Float[Tensor, "d_in d_in"]:
        """`sum (value, key and query rows) (y psi)^T`."""
        crossed = torch.einsum("gid,gdr,grj->ij", self.W_V, self.O, self.with_values)
        crossed += torch.einsum("gie,gej->ij", self.W_K, self.with_keys)
        return crossed + torch.einsum("gie,gej->ij", self.W_Q, self.with_queries)
