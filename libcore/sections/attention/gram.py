"""An attention branch's Jacobian Gram `sum J J^T` from its parts (METHOD.md eq. 10; `attention_jacobian.py`).

Output features enter only through `Ω_hg = O^h O^gT`, kept as `reach`: the heads' outputs in an orthonormal basis of
what they span together. Sums over position pairs are products of matrices over positions; no array is as large as a
Jacobian.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature
from libcore.sections.attention.jacobian import AttentionParts, attention_parts
from libcore.sections.attention.rank_one import RankOneEffect, RankOneSums
from libcore.sections.branch import DenseJacobian, JacobianSums, Positions
from libcore.streams import float64_zeros

if TYPE_CHECKING:
    from libcore.sections.attention.branch import AttentionBranch


VALUES_IN_CACHE = 2**19
"""Numbers worked on at a time where an intermediate is many times as large as what it comes from."""


class AttentionJacobianSums(JacobianSums):
    """Sums over inputs that `sum J J^T` and `sum J_tt` are made of, by pairs of heads `(g, g')`."""

    def __init__(self, branch: AttentionBranch, to_basis_next: Tensor, quadrature: Quadrature) -> None:
        self.branch = branch
        self.quadrature = quadrature
        n_points = len(quadrature.points)
        output = branch.W_O @ to_basis_next
        spanned, triangular = torch.linalg.qr(output.flatten(0, 1).T)
        self.span = spanned.T
        self.reach = triangular.T.unflatten(0, output.shape[:2]).repeat(n_points, 1, 1)
        self.w_q, self.w_k, self.w_v = (w.repeat(n_points, 1, 1) for w in (branch.W_Q, branch.W_K, branch.W_V))
        n_heads, d_value, _ = self.reach.shape
        d_head = self.w_q.shape[-1]
        self.overlap = torch.einsum("gdr,her->ghde", self.reach, self.reach)

        def zeros(*shape: int) -> Tensor:
            return float64_zeros(*shape, like=self.reach)

        self.value_value = zeros(n_heads, n_heads)
        self.key_key, self.key_query, self.query_query = (zeros(n_heads, n_heads, d_head, d_head) for _ in range(3))
        self.value_key, self.value_query = (zeros(n_heads, n_heads, d_value, d_head) for _ in range(2))
        self.pattern_sum = zeros(n_heads)
        self.key_sum, self.query_sum = zeros(n_heads, d_head, d_value), zeros(n_heads, d_head, d_value)
        self.rank_one = RankOneSums(self)

    def add(self, activation: Float[Tensor, "batch position d_in"], positions: Positions) -> DenseJacobian:
        parts = attention_parts(self.branch, activation, positions, self.quadrature)
        own = OwnPosition(parts, positions, self.branch)
        self._add_own_position(own)
        effects: list[RankOneEffect] = []
        for queries, keys in self.branch.key_blocks(positions):
            pairs = parts.between(queries, keys)
            block = Positions(positions.queries[queries], positions.keys[keys])
            self._add_pairs(pairs, block)
            effects += self.rank_one.add(pairs, block, queries, keys)
        terms = self.rank_one.add_own_position(parts, own, effects)

        def dense() -> Float[Tensor, "sample d_in feature_out"]:
            jacobian = torch.einsum("btg,gid,gdr->btir", own.pattern, self.w_v, self.reach)
            keys = torch.einsum("gie,btge,btgd,gdr->btir", self.w_k, own.query, own.pull, self.reach)
            queries = torch.einsum("gie,btged,gdr->btir", self.w_q, own.through_query, self.reach)
            jacobian = jacobian + keys + queries
            for left, right in terms:
                jacobian = jacobian + left[..., None] * right[..., None, :]
            return jacobian.flatten(0, 1) @ self.span

        return dense

    def _add_pairs(self, parts: AttentionParts, positions: Positions) -> None:
        """Value and key rows, of all position pairs; head by head, so that arrays stay a few numbers per pair."""
        pattern = (parts.pattern * parts.weight[:, :, None, :]).transpose(0, 1).contiguous()
        query, value, mixed = (part.transpose(0, 1).contiguous() for part in (parts.query, parts.value, parts.mixed))
        for g in range(len(pattern)):
            product = pattern[g] * pattern
            self.value_value[g] += product.sum((1, 2, 3))
            # v_s belongs to the key, so the queries asked of it are summed first; z_t belongs to the query.
            asked = self.branch.turn(product.transpose(-1, -2) @ query, -positions.keys)
            met = value.flatten(1, 2).transpose(-1, -2) @ asked.flatten(1, 2)
            turned = self.branch.turned_back_by_keys(query, product, positions)
            met -= mixed.flatten(1, 2).transpose(-1, -2) @ turned.flatten(1, 2)
            self.value_key[g] += met / self.branch.scale
            pulled = product[g:] * self._pull_overlap(g, value, mixed) / self.branch.scale**2
            self.key_key[g, g:] += self._asked_twice(g, query, pulled, positions)

    def _pull_overlap(self, g: int, value: Tensor, mixed: Tensor) -> Float[Tensor, "head batch query key"]:
        """`(v_gs - z_gt) Ω_gh (v_hs - z_ht)^T` for every head `h >= g`."""
        to_others = self.overlap[g, g:, None]
        value_reach, mixed_reach = value[g] @ to_others, mixed[g] @ to_others
        value, mixed = value[g:], mixed[g:]
        overlap = (value_reach * value).sum(-1)[:, :, None, :] + (mixed_reach * mixed).sum(-1)[..., None]
        return overlap - mixed_reach @ value.transpose(-1, -2) - mixed @ value_reach.transpose(-1, -2)

    def _asked_twice(
        self, g: int, query: Tensor, pairs: Float[Tensor, "head batch query key"], positions: Positions
    ) -> Float[Tensor, "head d_head d_head"]:
        """`sum pairs_ts q_gt^T q_ht`, both queries turned back by the key's position, for every head `h >= g`."""
        both = (query[g][..., :, None] * query[g:][..., None, :]).flatten(-2)
        if self.branch.rotary is None:
            summed = pairs.sum(-1).flatten(1)[:, None] @ both.flatten(1, 2)
            return summed.unflatten(-1, (query.shape[-1], -1)).squeeze(1)
        by_key = (pairs.transpose(-1, -2) @ both).sum(1).unflatten(-1, (query.shape[-1], -1))
        turned = self.branch.turn(by_key.transpose(1, 2), -positions.keys)
        return self.branch.turn(turned.transpose(1, 3), -positions.keys).transpose(1, 3).sum(2)

    def _add_own_position(self, own: OwnPosition) -> None:
        """Query rows, what they share with value and key rows, and the transfer: the pairs `s = t`."""
        through = own.through_query.flatten(0, 1)
        pattern, query, pull = (part.flatten(0, 1) for part in (own.pattern, own.query, own.pull))
        heads = through.shape[1:3]
        size = max(1, VALUES_IN_CACHE // (heads.numel() * self.reach.shape[-1]))
        for some, asking, pulled in zip(through.split(size), query.split(size), pull.split(size), strict=True):
            reached = (some.transpose(0, 1).flatten(1, 2) @ self.reach).unflatten(1, some.shape[::2][:2])
            in_rows = reached.transpose(1, 2).flatten(0, 1).flatten(1)
            self.query_query += (in_rows @ in_rows.T).unflatten(0, heads).unflatten(2, heads).transpose(1, 2)
            by_sample = in_rows.unflatten(1, (len(some), -1)).permute(1, 2, 0)
            met = (pulled.transpose(0, 1) @ self.reach).transpose(0, 1) @ by_sample
            key_query = asking.permute(1, 2, 0) @ met.transpose(0, 1)
            self.key_query += key_query.unflatten(2, heads).transpose(1, 2)
        self.value_query += torch.einsum("ng,nhfc->ghcf", pattern, through)
        self.pattern_sum += pattern.sum(0)
        self.key_sum += torch.einsum("nge,ngd->ged", query, pull)
        self.query_sum += through.sum(0)

    def transfer(self) -> Float[Tensor, "d_in feature_out"]:
        moved = self.pattern_sum[:, None, None] * self.w_v + self.w_k @ self.key_sum + self.w_q @ self.query_sum
        return (torch.einsum("gid,gdr->ir", moved, self.reach) + self.rank_one.own_position) @ self.span

    def gram(self) -> Float[Tensor, "d_in d_in"]:
        values = self.w_v @ self.reach
        own = torch.einsum("gh,gir,hjr->ij", self.value_value, values, values)
        upper = torch.einsum("gie,ghef,hjf->ij", self.w_k, self.key_key, self.w_k)
        diagonal = torch.einsum("gie,gef,gjf->ij", self.w_k, self.key_key.diagonal().permute(2, 0, 1), self.w_k)
        own = own + upper + upper.T - diagonal
        own = own + torch.einsum("gie,ghef,hjf->ij", self.w_q, self.query_query, self.w_q)
        mixed = torch.einsum("gic,ghcd,ghde,hje->ij", self.w_v, self.overlap, self.value_key, self.w_k)
        mixed = mixed + torch.einsum("gic,ghcd,ghde,hje->ij", self.w_v, self.overlap, self.value_query, self.w_q)
        mixed = mixed + torch.einsum("gie,ghef,hjf->ij", self.w_k, self.key_query, self.w_q)
        mixed = mixed + self.rank_one.cross()
        return own + mixed + mixed.T + self.rank_one.own


class OwnPosition:
    """The parts where a position reads itself, times the weight `w`; queries turned back by their own position."""

    def __init__(self, parts: AttentionParts, positions: Positions, branch: AttentionBranch) -> None:
        row, column = positions.own()
        weight = parts.weight[:, :, column].transpose(1, 2)
        own_value, mixed = parts.value[:, :, column].transpose(1, 2), parts.mixed.transpose(1, 2)
        self.pattern: Float[Tensor, "batch query head"] = parts.pattern[:, :, row, column].transpose(1, 2) * weight
        self.query: Float[Tensor, "batch query head d_head"] = branch.turn(parts.query, -positions.queries).transpose(
            1, 2
        )
        self.pull: Float[Tensor, "batch query head d_value"] = (
            self.pattern[..., None] * (own_value - mixed) / branch.scale
        )
        self.through_query: Float[Tensor, "batch query head d_head d_value"] = (
            parts.through_query.transpose(1, 2) * weight[..., None, None]
        )
