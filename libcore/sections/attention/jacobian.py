"""What an attention branch's Jacobian is made of, for one chunk of inputs (METHOD.md eq. 10, with its symbols).

    d fhat_t / d f_s = sum_h T_h,ts O^h,    T_h,ts = a_h,ts W_V^h + W_K^h q_h,t^T u_h,ts + δ_ts W_Q^h X_h,t,

    u_h,ts = a_h,ts (v_h,s - z_h,t) / scale,    X_h,t = sum_s k_h,s^T u_h,ts,    O^h = W_O^h C.

In the key term `q` is turned back by the key's position, in `X` the keys by the query's. Averaged along the path from
zero, `h` runs over the heads at every point, each times the point's weight `w`. With a normalisation in front,
`w_h,s` carries `1 / σ` at the input position too, and the Jacobian has rank-one terms besides,

    sum_n y_n,s^T psi_n,ts,    psi_n,ts = sum_h c_nh,s (v_n,s a_h,ts + (q_h,t k_n,s^T) u_h,ts + δ_ts q_n,t X_h,t) O^h:

the scale moves along `y = x_c`, where queries, keys and values read `q_n, k_n, v_n = x W_Q, x W_K, x W_V`; and the
constant coordinate, which is not divided, reads the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention, split_heads
from libcore.sections.attention.rotary import Waves
from libcore.sections.branch import Positions
from libcore.sections.normalisation import Normalisation, padded, unit_like


@dataclass(frozen=True)
class RankOneTerm:
    """One rank-one term `n`: its direction `y`, its coefficient `c`, and what queries, keys and values read there."""

    y: Float[Tensor, "batch key d_in"]
    c: Float[Tensor, "head batch key"]
    q: Float[Tensor, "head batch query d_head"]
    k: Float[Tensor, "head batch key d_head"]
    v: Float[Tensor, "head batch key d_value"]


@dataclass(frozen=True)
class AttentionParts:
    """The parts on one chunk, float64; the heads at all points of the path stand side by side, point by point.

    `q` and `k` are turned by their own positions, as `query_waves` does it; so are the rank-one terms' keys. Heads come
    first, so that what two of them share is a product of contiguous arrays.
    """

    a: Float[Tensor, "head batch query key"]
    w: Float[Tensor, "head batch key"]
    q: Float[Tensor, "head batch query d_head"]
    k: Float[Tensor, "head batch key d_head"]
    v: Float[Tensor, "head batch key d_value"]
    z: Float[Tensor, "head batch query d_value"]
    terms: tuple[RankOneTerm, ...]
    query_waves: Waves
    scale: float

    @cached_property
    def X(self) -> Float[Tensor, "head batch query d_head d_value"]:
        """Keys turned back by the query's position. Many numbers, so made where they are asked for."""
        return keys_and_values_read(self.a, self.k, self.v, self.z, self.query_waves).div_(self.scale)


class OwnPosition:
    """The parts where a position reads itself, `s = t`; `q` turned back by its own position.

    Attributes:
        row, column: of queries and of keys.
        a: with the weight `w`.
        u: likewise.
    """

    def __init__(self, parts: AttentionParts, positions: Positions) -> None:
        self.row, self.column = positions.own()
        assert len(self.row) == len(positions.queries)
        self.parts, self.w = parts, parts.w[:, :, self.column]
        self.a: Float[Tensor, "head batch query"] = parts.a[:, :, self.row, self.column] * self.w
        self.q: Float[Tensor, "head batch query d_head"] = parts.query_waves.turn_back(parts.q)
        v = parts.v[:, :, self.column]
        self.u: Float[Tensor, "head batch query d_value"] = self.a[..., None] * (v - parts.z) / parts.scale

    @cached_property
    def X(self) -> Float[Tensor, "head batch query d_head d_value"]:
        """Likewise."""
        return self.parts.X * self.w[..., None, None]


def attention_parts(
    attention: Attention,
    activation: Float[Tensor, "batch position d_in"],
    positions: Positions,
    quadrature: Quadrature,
) -> AttentionParts:
    """One forward pass per point of the path."""
    at_points = [parts_at_point(attention, activation, positions, alpha, weight) for alpha, weight in quadrature]
    if len(at_points) == 1:
        return at_points[0]
    terms = tuple(
        RankOneTerm(y=same[0].y, **side_by_side(same, "c", "q", "k", "v"))
        for same in zip(*(parts.terms for parts in at_points), strict=True)
    )
    return replace(at_points[0], terms=terms, **side_by_side(at_points, "a", "w", "q", "k", "v", "z"))


def side_by_side(at_points: Sequence[AttentionParts] | Sequence[RankOneTerm], *fields: str) -> dict[str, Tensor]:
    """Fields by name, the points' heads in one dimension."""
    return {name: torch.cat([getattr(parts, name) for parts in at_points]) for name in fields}


def parts_at_point(
    attention: Attention, activation: Tensor, positions: Positions, alpha: float, weight: float
) -> AttentionParts:
    """The parts at `alpha * activation`, times the point's weight."""
    pattern = attention.pattern(alpha * activation, positions)
    a, q, k, v = (part.transpose(0, 1).contiguous() for part in (pattern.a, pattern.q, pattern.k, pattern.v))
    z = a @ v
    n_heads = len(attention.W_Q)
    if attention.normalisation is None:
        w, terms = activation.new_full((n_heads, len(activation), positions.count), weight), ()
    else:
        inverse_scale = attention.normalisation.inverse_scale(alpha * activation).squeeze(-1)
        w = (weight * inverse_scale).expand(n_heads, -1, -1)
        inverse_scale = inverse_scale.expand(n_heads, -1, -1)
        terms = rank_one_terms(attention, attention.normalisation, activation, positions, inverse_scale, alpha, weight)
    return AttentionParts(a, w, q, k, v, z, terms, attention.waves(positions.queries, q), attention.scale)


def keys_and_values_read(
    a: Float[Tensor, "head batch query key"],
    k: Float[Tensor, "head batch key d_head"],
    v: Float[Tensor, "head batch key d_value"],
    z: Float[Tensor, "head batch query d_value"],
    waves: Waves,
) -> Float[Tensor, "head batch query d_head d_value"]:
    """`sum_s a_ts k_s^T (v_s - z_t)`, keys turned back by the query's position."""
    if a.shape[2] < k.shape[2]:
        a_k = waves.turn_back((a[..., None] * k[:, :, None]).transpose(2, 3)).transpose(2, 3)
        return a_k.mT @ (v[:, :, None] - z[..., None, :])
    with_v = (k[..., None] * v[..., None, :]).flatten(-2)
    sum_k_v, sum_k = (a @ torch.cat([with_v, k], -1)).split((with_v.shape[-1], k.shape[-1]), dim=-1)
    read = sum_k_v.unflatten(-1, (k.shape[-1], -1)) - sum_k[..., None] * z[..., None, :]
    return waves.turn_columns_back(read.transpose(2, 3)).transpose(2, 3)


def rank_one_terms(
    attention: Attention,
    normalisation: Normalisation,
    activation: Tensor,
    positions: Positions,
    inverse_scale: Float[Tensor, "head batch key"],
    alpha: float,
    weight: float,
) -> tuple[RankOneTerm, ...]:
    """Along `x_c` the scale moves; the constant coordinate is not divided by it."""
    width = normalisation.width
    W_Q, W_K, W_V = (attention.W_Q, attention.W_K[:: attention.group], attention.W_V[:: attention.group])

    def term(read: Tensor, y: Tensor, c: Tensor) -> RankOneTerm:
        q = split_heads(positions.at_queries(read), W_Q)
        k, v = (attention.for_heads(split_heads(read, matrix)) for matrix in (W_K, W_V))
        k = attention.waves(positions.keys, k).turn(k)
        return RankOneTerm(y, c, *(part.transpose(0, 1).contiguous() for part in (q, k, v)))

    residual = padded(activation[..., :width], 1)
    along_scale = padded(normalisation.centre(activation), 1) / -width
    terms = [term(residual, along_scale, weight * alpha**2 * inverse_scale**3)]
    if any(matrix[:, width:].any() for matrix in (W_Q, W_K, W_V)):
        constant = unit_like(activation, -1)
        terms.append(term(constant, constant, weight * (1 - inverse_scale)))
    return tuple(terms)
