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
from libcore.sections.attention_jacobian_parts import AttentionParts, parts_at_point
from libcore.sections.branch import Attributions, Positions

if TYPE_CHECKING:
    from libcore.sections.attention_branch import AttentionBranch


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
            heads = [
                moved_by_head(h, branch, parts, features, from_basis, weights, positions) for h in range(len(output))
            ]
            at_point = torch.cat(heads, dim=-1) @ output.flatten(0, 1)
            total = at_point if total is None else total.add_(at_point)
        assert total is not None
        return total

    return attributions


def moved_by_head(
    h: int,
    branch: AttentionBranch,
    parts: AttentionParts,
    features: Float[Tensor, "batch key feature_in"],
    from_basis: Float[Tensor, "feature_in d_in"],
    weights: tuple[Tensor, ...],
    positions: Positions,
) -> Float[Tensor, "batch query feature_in d_value"]:
    """`sum_s fhat_sj (dz_t / dfhat_sj)` of one head: through its values, keys and query, and along rank-one terms."""
    w_q, w_k, w_v = (weight[h] for weight in weights)
    pattern, query, value, mixed = (part[:, h] for part in (parts.pattern, parts.query, parts.value, parts.mixed))
    read = features * parts.weight[:, h, :, None]
    moved = (pattern @ read)[..., None] * w_v
    # Every feature's key at every position, asked by every query: [batch, query, key, feature]
    keys = branch.turn((read[..., None] * w_k).transpose(1, 2), positions.keys)
    asked = torch.einsum("bte,bjse->btjs", query, keys) * (pattern / branch.scale)[:, :, None, :]
    moved += torch.einsum("btjs,bsd->btjd", asked, value) - asked.sum(-1)[..., None] * mixed[:, :, None, :]
    at_query = read[:, positions.queries]
    moved += torch.einsum("btj,je,bted->btjd", at_query, w_q, parts.through_query[:, h])
    for rows in parts.rows:
        along = (rows.left @ from_basis.T) * features * rows.coefficient[:, h, :, None]
        through_key = pattern * (query @ rows.key[:, h].transpose(-1, -2)) / branch.scale
        with_value = (along[..., None] * rows.value[:, h, :, None, :]).flatten(2)
        moved += (pattern @ with_value).unflatten(-1, moved.shape[2:])
        with_value = (along[..., None] * value[:, :, None, :]).flatten(2)
        moved += (through_key @ with_value).unflatten(-1, moved.shape[2:])
        moved -= (through_key @ along)[..., None] * mixed[:, :, None, :]
        through_query = torch.einsum("bte,bted->btd", rows.query[:, h], parts.through_query[:, h])
        moved += along[:, positions.queries, :, None] * through_query[:, :, None, :]
    return moved
