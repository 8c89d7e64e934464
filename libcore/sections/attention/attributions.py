"""An attention branch's part of the attributions: eq. 10 into eq. 7, before they are squared.

For each output position, what every input feature moves of every head's mixed value is summed over the positions it is
read at; `W_O` and the next basis then make output features of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature
from libcore.sections.attention.jacobian import AttentionParts, parts_at_point
from libcore.sections.branch import Attributions, Positions

if TYPE_CHECKING:
    from libcore.sections.attention.branch import AttentionBranch


def attention_attributions(
    branch: AttentionBranch,
    from_basis: Float[Tensor, "feature_in d_in"],
    to_basis_next: Float[Tensor, "d_out feature_out"],
    quadrature: Quadrature,
) -> Attributions:
    """Sum over the path's points: attributions are linear in the Jacobian."""
    weights = tuple(from_basis @ weight for weight in (branch.W_Q, branch.W_K, branch.W_V))
    output = branch.W_O @ to_basis_next

    def attributions(features: Tensor, positions: Positions) -> Tensor:
        activation = features @ from_basis
        total: Tensor | None = None
        for alpha, weight in quadrature:
            parts = parts_at_point(branch, activation, positions, alpha, weight)
            heads = [HeadAttribution(h, branch, parts, features, from_basis, weights) for h in range(len(output))]
            moved = torch.cat([head.moved(positions) for head in heads], dim=-1)
            at_point = moved @ output.flatten(0, 1)
            total = at_point if total is None else total.add_(at_point)
        assert total is not None
        return total

    return attributions


class HeadAttribution:
    """One head's `sum_s fhat_sj (dz_t / dfhat_sj)`: through its values, keys and query, and along rank-one terms."""

    def __init__(
        self,
        h: int,
        branch: AttentionBranch,
        parts: AttentionParts,
        features: Float[Tensor, "batch key feature_in"],
        from_basis: Float[Tensor, "feature_in d_in"],
        weights: tuple[Tensor, ...],
    ) -> None:
        self.branch = branch
        self.w_q, self.w_k, self.w_v = (weight[h] for weight in weights)
        self.pattern, self.query = parts.pattern[:, h], parts.query[:, h]
        self.value, self.mixed = parts.value[:, h], parts.mixed[:, h]
        self.through_query = parts.through_query[:, h]
        self.read = features * parts.weight[:, h, :, None]
        self.rows = [(row.query[:, h], row.key[:, h], row.value[:, h]) for row in parts.rows]
        self.along = [(row.left @ from_basis.T) * features * row.coefficient[:, h, :, None] for row in parts.rows]

    def moved(self, positions: Positions) -> Float[Tensor, "batch query feature_in d_value"]:
        """At every output position."""
        moved = self._through_own_query(positions)
        if self.branch.rotary is None:
            read, with_value = self._mixed_by(self.pattern, self.read)
            asked = (self.query @ self.w_k.T / self.branch.scale)[..., None]
            moved += read[..., None] * self.w_v + asked * (with_value - read[..., None] * self.mixed[:, :, None])
        else:
            moved += (self.pattern @ self.read)[..., None] * self.w_v
            for queries, keys in self.branch.key_blocks(positions):
                moved[:, queries] += self._through_turned_keys(queries, keys, positions)
        for (_, row_key, row_value), along in zip(self.rows, self.along, strict=True):
            through_key = self.pattern * (self.query @ row_key.transpose(-1, -2)) / self.branch.scale
            read, with_value = self._mixed_by(through_key, along)
            moved += with_value - read[..., None] * self.mixed[:, :, None]
            moved += (self.pattern @ outer(along, row_value)).unflatten(-1, moved.shape[2:])
        return moved

    def _mixed_by(self, pattern: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """`sum_s pattern_ts read_sj`, and the same times `v_s`."""
        with_value = (pattern @ outer(read, self.value)).unflatten(-1, (read.shape[-1], -1))
        return pattern @ read, with_value

    def _through_turned_keys(self, queries: Tensor, keys: Tensor, positions: Positions) -> Tensor:
        """Through keys whose positions turn them, so that each pair of positions has its own product with a query."""
        turned = self.branch.turn((self.read[:, keys, :, None] * self.w_k).transpose(1, 2), positions.keys[keys])
        asked = (self.query[:, queries] @ turned.flatten(1, 2).transpose(-1, -2)).unflatten(-1, turned.shape[1:3])
        pattern = self.pattern[:, queries[:, None], keys, None] / self.branch.scale
        weighted = pattern * (self.value[:, None, keys] - self.mixed[:, queries, None])
        return asked @ weighted

    def _through_own_query(self, positions: Positions) -> Tensor:
        """An output position's own features, through its query."""
        row, column = positions.own()
        assert len(row) == len(positions.queries)
        moved = torch.einsum("btj,je,bted->btjd", self.read[:, column], self.w_q, self.through_query)
        for (row_query, _, _), along in zip(self.rows, self.along, strict=True):
            through_query = torch.einsum("bte,bted->btd", row_query, self.through_query)
            moved += along[:, column, :, None] * through_query[:, :, None, :]
        return moved


def outer(
    read: Float[Tensor, "batch key feature_in"], value: Float[Tensor, "batch key d_value"]
) -> Float[Tensor, "batch key feature_in_d_value"]:
    """Every feature with every value coordinate, at the same position."""
    return (read[..., None] * value[:, :, None, :]).flatten(2)
