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
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention, split_heads
from libcore.sections.branch import Positions
from libcore.sections.normalisation import Normalisation, padded, unit_like


@dataclass(frozen=True)
class RankOneTerm:
    """One rank-one term `n`: its direction `y`, its coefficient `c`, and what queries, keys and values read there."""

    y: Float[Tensor, "batch key d_in"]
    c: Float[Tensor, "batch head key"]
    q: Float[Tensor, "batch head query d_head"]
    k: Float[Tensor, "batch head key d_head"]
    v: Float[Tensor, "batch head key d_value"]

    def between(self, queries: Tensor, keys: Tensor) -> RankOneTerm:
        """What concerns these queries and keys only."""
        return RankOneTerm(
            self.y[:, keys], self.c[:, :, keys], self.q[:, :, queries], self.k[:, :, keys], self.v[:, :, keys]
        )


@dataclass(frozen=True)
class AttentionParts:
    """The parts on one chunk, float64; the heads at all points of the path stand side by side, point by point.

    `q` and `k` are turned by their own positions; so are the rank-one terms' keys.
    """

    a: Float[Tensor, "batch head query key"]
    w: Float[Tensor, "batch head key"]
    q: Float[Tensor, "batch head query d_head"]
    k: Float[Tensor, "batch head key d_head"]
    v: Float[Tensor, "batch head key d_value"]
    z: Float[Tensor, "batch head query d_value"]
    X: Float[Tensor, "batch head query d_head d_value"]
    terms: tuple[RankOneTerm, ...]

    def between(self, queries: Tensor, keys: Tensor) -> AttentionParts:
        """What concerns these queries and keys only."""
        return AttentionParts(
            self.a[:, :, queries[:, None], keys],
            self.w[:, :, keys],
            self.q[:, :, queries],
            self.k[:, :, keys],
            self.v[:, :, keys],
            self.z[:, :, queries],
            self.X[:, :, queries],
            tuple(term.between(queries, keys) for term in self.terms),
        )


class OwnPosition:
    """The parts where a position reads itself, `s = t`, times the weight `w`; `q` turned back by its own position."""

    def __init__(self, parts: AttentionParts, positions: Positions, attention: Attention) -> None:
        row, column = positions.own()
        w = parts.w[:, :, column].transpose(1, 2)
        v, z = parts.v[:, :, column].transpose(1, 2), parts.z.transpose(1, 2)
        q = attention.turn(parts.q, -positions.queries).transpose(1, 2)
        self.a: Float[Tensor, "batch query head"] = parts.a[:, :, row, column].transpose(1, 2) * w
        self.q: Float[Tensor, "batch query head d_head"] = q
        self.u: Float[Tensor, "batch query head d_value"] = self.a[..., None] * (v - z) / attention.scale
        self.X: Float[Tensor, "batch query head d_head d_value"] = parts.X.transpose(1, 2) * w[..., None, None]


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
    return AttentionParts(terms=terms, **side_by_side(at_points, "a", "w", "q", "k", "v", "z", "X"))


def side_by_side(at_points: Sequence[AttentionParts] | Sequence[RankOneTerm], *fields: str) -> dict[str, Tensor]:
    """Fields by name, the points' heads in one dimension."""
    return {name: torch.cat([getattr(parts, name) for parts in at_points], 1) for name in fields}


def parts_at_point(
    attention: Attention, activation: Tensor, positions: Positions, alpha: float, weight: float
) -> AttentionParts:
    """The parts at `alpha * activation`, times the point's weight."""
    pattern = attention.pattern(alpha * activation, positions)
    a, k, v = pattern.a, pattern.k, pattern.v
    z = a @ v
    # sum_s a k_s^T (v_s - z) = sum_s a k_s^T v_s - (sum_s a k_s)^T z
    keys_with_values = (k[..., :, None] * v[..., None, :]).flatten(-2)
    sum_k_v = (a @ keys_with_values).unflatten(-1, (k.shape[-1], -1))
    X = (sum_k_v - (a @ k)[..., None] * z[..., None, :]) / attention.scale
    X = attention.turn(X.transpose(-1, -2).transpose(-3, -2), -positions.queries).transpose(-3, -2).transpose(-1, -2)
    n_heads = len(attention.W_Q)
    if attention.normalisation is None:
        w, terms = activation.new_full((len(activation), n_heads, positions.count), weight), ()
    else:
        inverse_scale = attention.normalisation.inverse_scale(alpha * activation).transpose(1, 2)
        w = (weight * inverse_scale).expand(-1, n_heads, -1)
        inverse_scale = inverse_scale.expand(-1, n_heads, -1)
        terms = rank_one_terms(attention, attention.normalisation, activation, positions, inverse_scale, alpha, weight)
    return AttentionParts(a, w, pattern.q, k, v, z, X, terms)


def rank_one_terms(
    attention: Attention,
    normalisation: Normalisation,
    activation: Tensor,
    positions: Positions,
    inverse_scale: Float[Tensor, "batch head key"],
    alpha: float,
    weight: float,
) -> tuple[RankOneTerm, ...]:
    """Along `x_c` the scale moves; the constant coordinate is not divided by it."""
    width = normalisation.width
    weights = (attention.W_Q, attention.W_K, attention.W_V)

    def term(read: Tensor, y: Tensor, c: Tensor) -> RankOneTerm:
        q, k, v = (split_heads(read, matrix) for matrix in weights)
        return RankOneTerm(y, c, q[:, :, positions.queries], attention.turn(k, positions.keys), v)

    residual = padded(activation[..., :width], 1)
    along_scale = padded(normalisation.centre(activation), 1) / -width
    terms = [term(residual, along_scale, weight * alpha**2 * inverse_scale**3)]
    if any(matrix[:, width:].any() for matrix in weights):
        constant = unit_like(activation, -1)
        terms.append(term(constant, constant, weight * (1 - inverse_scale)))
    return tuple(terms)
