"""What an attention branch's Jacobian is made of, for one chunk of inputs (METHOD.md eq. 10, with its symbols).

    d fhat_t / d f_s = sum_h T_h,ts O^h,    T_h,ts = a_h,ts W_V^h + W_K^h q_h,t^T u_h,ts + δ_ts W_Q^h X_h,t,

    u_h,ts = b_h,ts (v_h,s - z_h,t) / scale,    X_h,t = sum_s k_h,s^T u_h,ts,    O^h = W_O^h C,

`b = a`, or `a (1 - tanh²)` where scores have a soft cap. In the key term `q` is pulled back to what keys read: turned
back by the key's position, and through the key's normalisation where there is one; in `X` the keys by the query's.
Where all heads are normalised together, a rank-one term besides has what they share (`head_terms.py`). Averaged along
the path from zero, `h` runs over the heads at every point, each times the point's weight `w`. With a normalisation in
front, `w_h,s` carries `1 / σ` at the input position too, and the Jacobian has rank-one terms besides,

    sum_n y_n,s^T psi_n,ts,    psi_n,ts = sum_h c_nh,s (v_n,s a_h,ts + (q_h,t k_n,s^T) u_h,ts + δ_ts q_n,t X_h,t) O^h:

the scale moves along `y = x_c`, where queries, keys and values read `q_n, k_n, v_n = x W_Q, x W_K, x W_V`; and the
constant coordinate, which is not divided, reads the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.head_maps import HeadMap
from libcore.sections.attention.head_terms import head_terms
from libcore.sections.attention.heads import split_heads
from libcore.sections.attention.parts import AttentionParts, RankOneTerm
from libcore.sections.branch import Positions
from libcore.sections.normalisation import Normalisation, padded, unit_like


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
    maps = {
        name: HeadMap.side_by_side([getattr(parts, name) for parts in at_points]) for name in ("query_map", "key_map")
    }
    fields = side_by_side(at_points, "a", "w", "q", "k", "v", "z")
    b = fields["a"] if at_points[0].b is at_points[0].a else side_by_side(at_points, "b")["b"]
    return replace(at_points[0], terms=terms, head_terms=apart(at_points), b=b, **maps, **fields)


def side_by_side(at_points: Sequence[AttentionParts] | Sequence[RankOneTerm], *fields: str) -> dict[str, Tensor]:
    """Fields by name, the points' heads in one dimension."""
    return {name: torch.cat([getattr(parts, name) for parts in at_points]) for name in fields}


def apart(at_points: Sequence[AttentionParts]) -> tuple[RankOneTerm, ...]:
    """Terms of heads, whose directions are another at every point: each is nothing at the heads of all others."""
    found: list[RankOneTerm] = []
    for number, parts in enumerate(at_points):
        before, after = number * len(parts.a), (len(at_points) - 1 - number) * len(parts.a)
        for term in parts.head_terms:
            of_heads = {name: getattr(term, name) for name in ("c", "q", "k", "v")}
            padded_heads = {
                name: pad(part, (0, 0) * (part.ndim - 1) + (before, after)) for name, part in of_heads.items()
            }
            found.append(RankOneTerm(term.y, **padded_heads))
    return tuple(found)


def parts_at_point(
    attention: Attention, activation: Tensor, positions: Positions, alpha: float, weight: float
) -> AttentionParts:
    """The parts at `alpha * activation`, times the point's weight."""
    at_point = alpha * activation
    read = attention.read_heads(at_point, positions)
    q, k, v = attention.prepared(*read, at_point[..., -1], positions)
    q, k, v = (heads.transpose(0, 1).contiguous() for heads in (q, attention.for_heads(k), attention.for_heads(v)))
    scores = attention.scores(q, k)
    a = (scores + attention.added_to_scores(positions)[:, None]).softmax(-1)
    b = a if attention.soft_cap is None else a * (1 - (scores / attention.soft_cap).square())
    z = a @ v
    n_heads = len(attention.W_Q)
    query_map = HeadMap.of(attention.queries, read[0].transpose(0, 1), attention.waves(positions.queries, q))
    of_key_values = HeadMap.of(attention.keys, read[1].transpose(0, 1), attention.waves(positions.keys, k))
    key_map = of_key_values.heads(torch.arange(n_heads, device=k.device) // attention.group)
    if attention.normalisation is None:
        w, terms = activation.new_full((n_heads, len(activation), positions.count), weight), ()
    else:
        inverse_scale = attention.normalisation.inverse_scale(alpha * activation).squeeze(-1)
        w = (weight * inverse_scale).expand(n_heads, -1, -1)
        inverse_scale = inverse_scale.expand(n_heads, -1, -1)
        coefficients = (alpha, weight)
        terms = rank_one_terms(
            attention, attention.normalisation, activation, positions, inverse_scale, key_map, *coefficients
        )
    parts = AttentionParts(a, b, w, q, k, v, z, terms, (), query_map, key_map, attention.scale)
    return replace(parts, head_terms=head_terms(attention, parts, activation, read[0].transpose(0, 1), positions))


def rank_one_terms(
    attention: Attention,
    normalisation: Normalisation,
    activation: Tensor,
    positions: Positions,
    inverse_scale: Float[Tensor, "head batch key"],
    key_map: HeadMap,
    alpha: float,
    weight: float,
) -> tuple[RankOneTerm, ...]:
    """Along `x_c` the scale moves; the constant coordinate is not divided by it."""
    width = normalisation.width
    W_Q, W_K, W_V = (attention.W_Q, attention.W_K[:: attention.group], attention.W_V[:: attention.group])

    def term(read: Tensor, y: Tensor, c: Tensor) -> RankOneTerm:
        q = split_heads(positions.at_queries(read), W_Q)
        k, v = (attention.for_heads(split_heads(read, matrix)) for matrix in (W_K, W_V))
        q, k, v = (part.transpose(0, 1).contiguous() for part in (q, k, v))
        return RankOneTerm(y, c, q, key_map.push_forward(k), v)

    residual = padded(activation[..., :width], 1)
    along_scale = padded(normalisation.centre(activation), 1) / -width
    terms = [term(residual, along_scale, weight * alpha**2 * inverse_scale**3)]
    if any(matrix[:, width:].any() for matrix in (W_Q, W_K, W_V)):
        constant = unit_like(activation, -1)
        terms.append(term(constant, constant, weight * (1 - inverse_scale)))
    return tuple(terms)
