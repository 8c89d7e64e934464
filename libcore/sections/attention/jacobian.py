"""What an attention branch's Jacobian is made of, for one chunk of inputs (METHOD.md eq. 10).

    J_ts = sum_g w_gs W^h F_g,ts O^h + sum_k y_k,s^T psi_k,ts,    psi_k,ts = sum_g c_kgs (row_k F_g,ts) O^h

`g` runs over heads `h` at the points of the path; `W^h` stacks the value, key and query weights, and `F_g,ts` stacks

    value rows   a_gts I
    key rows     q_gt^T u_gts            q turned back by the key's position
    query rows   δ_ts X_gt               X = sum_s k_gs^T u_gts, keys turned back by the query's position

with `u_gts = a_gts (v_gs - z_gt) / scale`. Without a normalisation, `w` is the point's weight and there are no rank-one
terms. With one, `w` carries `1 / σ` at the input position; the scale moves along `y = x_c`, on which queries, keys and
values read `row = x W^h`; and the constant coordinate, which is not divided, reads the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature
from libcore.sections.attention.heads import split_heads
from libcore.sections.branch import Positions
from libcore.sections.positionwise.branch import padded, unit_like

if TYPE_CHECKING:
    from libcore.sections.attention.branch import AttentionBranch


@dataclass(frozen=True)
class RankOneRows:
    """One rank-one term: its direction `y`, its coefficient `c`, and what the direction's rows are."""

    left: Float[Tensor, "batch key d_in"]
    coefficient: Float[Tensor, "batch head key"]
    query: Float[Tensor, "batch head query d_head"]
    key: Float[Tensor, "batch head key d_head"]
    value: Float[Tensor, "batch head key d_value"]


@dataclass(frozen=True)
class AttentionParts:
    """The parts on one chunk, float64; the heads at all points of the path stand side by side, point by point.

    Attributes:
        pattern: `a`.
        weight: `w`.
        query, key: turned by their own positions; so are those of the rank-one rows' keys.
        value, mixed: `v`, `z`.
        through_query: `X`.
    """

    pattern: Float[Tensor, "batch head query key"]
    weight: Float[Tensor, "batch head key"]
    query: Float[Tensor, "batch head query d_head"]
    key: Float[Tensor, "batch head key d_head"]
    value: Float[Tensor, "batch head key d_value"]
    mixed: Float[Tensor, "batch head query d_value"]
    through_query: Float[Tensor, "batch head query d_head d_value"]
    rows: tuple[RankOneRows, ...]

    def between(self, queries: Tensor, keys: Tensor) -> AttentionParts:
        """What concerns these queries and keys only."""
        rows = (
            RankOneRows(
                row.left[:, keys],
                row.coefficient[:, :, keys],
                row.query[:, :, queries],
                row.key[:, :, keys],
                row.value[:, :, keys],
            )
            for row in self.rows
        )
        return AttentionParts(
            self.pattern[:, :, queries[:, None], keys],
            self.weight[:, :, keys],
            self.query[:, :, queries],
            self.key[:, :, keys],
            self.value[:, :, keys],
            self.mixed[:, :, queries],
            self.through_query[:, :, queries],
            tuple(rows),
        )


def attention_parts(
    branch: AttentionBranch,
    activation: Float[Tensor, "batch position d_in"],
    positions: Positions,
    quadrature: Quadrature,
) -> AttentionParts:
    """One forward pass per point of the path."""
    at_points = [parts_at_point(branch, activation, positions, alpha, weight) for alpha, weight in quadrature]
    if len(at_points) == 1:
        return at_points[0]
    rows = tuple(
        RankOneRows(left=same[0].left, **side_by_side(same, "coefficient", "query", "key", "value"))
        for same in zip(*(parts.rows for parts in at_points), strict=True)
    )
    heads = side_by_side(at_points, "pattern", "weight", "query", "key", "value", "mixed", "through_query")
    return AttentionParts(rows=rows, **heads)


def side_by_side(at_points: Sequence[AttentionParts] | Sequence[RankOneRows], *fields: str) -> dict[str, Tensor]:
    """Fields by name, the points' heads in one dimension."""
    return {name: torch.cat([getattr(parts, name) for parts in at_points], 1) for name in fields}


def parts_at_point(
    branch: AttentionBranch, activation: Tensor, positions: Positions, alpha: float, weight: float
) -> AttentionParts:
    """The parts at `alpha * activation`, times the point's weight."""
    attended = branch.attend(alpha * activation, positions)
    mixed = attended.pattern @ attended.value
    # sum_s a k_s^T (v_s - z) = sum_s a k_s^T v_s - (sum_s a k_s)^T z
    keys_with_values = (attended.key[..., :, None] * attended.value[..., None, :]).flatten(-2)
    with_values = (attended.pattern @ keys_with_values).unflatten(-1, (attended.key.shape[-1], -1))
    mean_key = attended.pattern @ attended.key
    through_query = (with_values - mean_key[..., None] * mixed[..., None, :]) / branch.scale
    turned_back = branch.turn(through_query.transpose(-1, -2).transpose(-3, -2), -positions.queries)
    n_heads = len(branch.W_Q)
    if branch.normalisation is None:
        weights, rows = activation.new_full((len(activation), n_heads, positions.count), weight), ()
    else:
        inverse_scale = branch.normalisation.inverse_scale(alpha * activation).transpose(1, 2)
        weights = (weight * inverse_scale).expand(-1, n_heads, -1)
        rows = rank_one_rows(branch, activation, positions, inverse_scale.expand(-1, n_heads, -1), alpha, weight)
    return AttentionParts(
        attended.pattern,
        weights,
        attended.query,
        attended.key,
        attended.value,
        mixed,
        turned_back.transpose(-3, -2).transpose(-1, -2),
        rows,
    )


def rank_one_rows(
    branch: AttentionBranch,
    activation: Tensor,
    positions: Positions,
    inverse_scale: Float[Tensor, "batch head key"],
    alpha: float,
    weight: float,
) -> tuple[RankOneRows, ...]:
    """Along `x_c` the scale moves; the constant coordinate is not divided by it."""
    assert branch.normalisation is not None
    width = branch.normalisation.width
    weights = (branch.W_Q, branch.W_K, branch.W_V)

    def rows_of(reads: Tensor, left: Tensor, coefficient: Tensor) -> RankOneRows:
        query, key, value = (split_heads(reads, matrix) for matrix in weights)
        return RankOneRows(left, coefficient, query[:, :, positions.queries], branch.turn(key, positions.keys), value)

    residual = padded(activation[..., :width], 1)
    along_scale = padded(branch.normalisation.centre(activation), 1) / -width
    rows = [rows_of(residual, along_scale, weight * alpha**2 * inverse_scale**3)]
    if any(matrix[:, width:].any() for matrix in weights):
        constant = unit_like(activation, -1)
        rows.append(rows_of(constant, constant, weight * (1 - inverse_scale)))
    return tuple(rows)
