"""The rank-one terms of a normalised attention branch's Jacobian, summed (`attention_jacobian.py`).

sum_k y_k,s^T psi_k,ts,   psi_k,ts = sum_g c_kgs [a_gts value_k,s + (q_gt key_k,s^T) u_gts + δ_ts query_k,t X_gt] O^h
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.sections.attention.jacobian import AttentionParts, RankOneRows
from libcore.sections.branch import Positions
from libcore.streams import float64_zeros

if TYPE_CHECKING:
    from libcore.sections.attention.gram import AttentionJacobianSums, OwnPosition


@dataclass(frozen=True)
class RankOneEffect:
    """`psi` of one rank-one term where output positions `queries` read themselves as `keys` (rows among all)."""

    term: int
    queries: Int[Tensor, " own"]
    keys: Int[Tensor, " own"]
    psi: Float[Tensor, "batch own reach"]


class RankOneSums:
    """Of `y psi` with itself, with the Jacobian's other rows, and within a position; outputs as `reach` has them."""

    def __init__(self, sums: AttentionJacobianSums) -> None:
        self.branch = sums.branch
        self.reach = sums.reach
        self.w_q, self.w_k, self.w_v = sums.w_q, sums.w_k, sums.w_v
        n_heads, d_in, d_head = self.w_q.shape
        n_reach = self.reach.shape[-1]
        self.with_values = float64_zeros(n_heads, n_reach, d_in, like=self.reach)
        self.with_keys = float64_zeros(n_heads, d_head, d_in, like=self.reach)
        self.with_queries = float64_zeros(n_heads, d_head, d_in, like=self.reach)
        self.own = float64_zeros(d_in, d_in, like=self.reach)
        self.own_position = float64_zeros(d_in, n_reach, like=self.reach)

    def add(self, parts: AttentionParts, positions: Positions, queries: Tensor, keys: Tensor) -> list[RankOneEffect]:
        """Take a block of position pairs in, whose rows among all are `queries` and `keys`."""
        if not parts.rows:
            return []
        value, mixed = parts.value @ self.reach, parts.mixed @ self.reach
        effects = [self._effect(rows, parts, value, mixed, positions) for rows in parts.rows]
        pattern = parts.pattern * parts.weight[:, :, None, :]
        for rows, effect in zip(parts.rows, effects, strict=True):
            of_values = torch.einsum("bgts,btsr->bgsr", pattern, effect)
            self.with_values += torch.einsum("bgsr,bsi->gri", of_values, rows.left)
            met = torch.einsum("bgsr,btsr->bgts", value, effect) - torch.einsum("bgtr,btsr->bgts", mixed, effect)
            of_keys = (pattern * met / self.branch.scale).transpose(-1, -2) @ parts.query
            of_keys = self.branch.turn(of_keys, -positions.keys)
            self.with_keys += torch.einsum("bgse,bsi->gei", of_keys, rows.left)
            for other_rows, other in zip(parts.rows, effects, strict=True):
                overlap = (effect * other).sum((1, 3))
                self.own += torch.einsum("bsi,bs,bsj->ij", rows.left, overlap, other_rows.left)
        row, column = positions.own()
        return [
            RankOneEffect(term, queries[row], keys[column], effect[:, row, column])
            for term, effect in enumerate(effects)
        ]

    def _effect(
        self,
        rows: RankOneRows,
        parts: AttentionParts,
        value: Float[Tensor, "batch head key reach"],
        mixed: Float[Tensor, "batch head query reach"],
        positions: Positions,
    ) -> Float[Tensor, "batch query key reach"]:
        """`psi` of every position pair."""
        direct = parts.pattern * rows.coefficient[:, :, None, :]
        through_key = direct * (parts.query @ rows.key.transpose(-1, -2)) / self.branch.scale
        of_keys = torch.cat([rows.value @ self.reach, value], dim=1)
        effect = torch.einsum("bgts,bgsr->btsr", torch.cat([direct, through_key], dim=1), of_keys)
        effect -= torch.einsum("bgts,bgtr->btsr", through_key, mixed)
        row, column = positions.own()
        through_query = torch.einsum("bgte,bgted->bgtd", rows.query[:, :, row], parts.through_query[:, :, row])
        through_query *= rows.coefficient[:, :, column, None]
        effect[:, row, column] += torch.einsum("bgtd,gdr->btr", through_query, self.reach)
        return effect

    def add_own_position(
        self, parts: AttentionParts, own: OwnPosition, effects: list[RankOneEffect]
    ) -> list[tuple[Tensor, Tensor]]:
        """With the query rows, which are within a position; `y` and `psi` of each term at the output positions."""
        n_queries = own.pattern.shape[1]
        terms = [
            (
                rows.left.new_zeros(len(rows.left), n_queries, rows.left.shape[-1]),
                rows.left.new_zeros(len(rows.left), n_queries, self.reach.shape[-1]),
            )
            for rows in parts.rows
        ]
        for effect in effects:
            left, right = terms[effect.term]
            left[:, effect.queries] = parts.rows[effect.term].left[:, effect.keys]
            right[:, effect.queries] = effect.psi
        for left, right in terms:
            reached = torch.einsum("gdr,btr->btgd", self.reach, right)
            of_queries = torch.einsum("btged,btgd->btge", own.through_query, reached)
            self.with_queries += torch.einsum("btge,bti->gei", of_queries, left)
            self.own_position += torch.einsum("bti,btr->ir", left, right)
        return terms

    def cross(self) -> Float[Tensor, "d_in d_in"]:
        """`sum (value, key and query rows) (y psi)^T`."""
        crossed = torch.einsum("gid,gdr,grj->ij", self.w_v, self.reach, self.with_values)
        crossed += torch.einsum("gie,gej->ij", self.w_k, self.with_keys)
        return crossed + torch.einsum("gie,gej->ij", self.w_q, self.with_queries)
