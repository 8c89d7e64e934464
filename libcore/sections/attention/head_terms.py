"""Rank-one terms of a normalisation of all heads together (symbols as in `jacobian.py` and `head_maps.py`).

A change `dκ` of what all heads' keys read moves their common scale: every `k` by `-k (κ̃ dκ) / (n σ)`, `n` coordinates
in all, and so `T` along one direction of the input,

    y_s = -(1 / (n σ_s)) d(κ̃_s κ_s) / d f_s,    p_h,ts = (q_h,t k_h,s^T) u_h,ts.

Of queries likewise at their own position, where `p_h,t = η_h,t X_h,t` for what queries read, `η`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.attention import Attention
from libcore.sections.attention.head_maps import HeadMap
from libcore.sections.attention.parts import AttentionParts, RankOneTerm
from libcore.sections.branch import Positions


def head_terms(
    attention: Attention,
    parts: AttentionParts,
    activation: Float[Tensor, "batch position d_in"],
    read_by_queries: Float[Tensor, "head batch query d_head"],
    positions: Positions,
) -> tuple[RankOneTerm, ...]:
    """At one point of the path; none where heads are not normalised, or each by itself."""
    terms: list[RankOneTerm] = []
    ones = torch.ones_like(parts.w)
    no_q, no_k, no_v = (torch.zeros_like(heads) for heads in (parts.q, parts.k, parts.v))
    own = positions.own()[1]
    keys, queries = attention.keys, attention.queries
    if keys is not None and keys.together:
        directions = attention.W_K[:: attention.group]
        y = along_scale(directions, parts.key_map, attention.group, parts, activation, slice(None))
        terms.append(RankOneTerm(y, ones, no_q, parts.k, no_v))
    if queries is not None and queries.together:
        y = torch.zeros_like(activation)
        y[:, own] = along_scale(attention.W_Q, parts.query_map, 1, parts, activation, own)
        terms.append(RankOneTerm(y, ones, read_by_queries, no_k, no_v))
    return tuple(terms)


def along_scale(
    weight: Float[Tensor, "heads d_in d_head"],
    head_map: HeadMap,
    group: int,
    parts: AttentionParts,
    activation: Float[Tensor, "batch position d_in"],
    rows: slice | Tensor,
) -> Float[Tensor, "batch some d_in"]:
    """`y` at some positions, of what these weights read, also through the normalisation in front of them."""
    normalised = head_map.normalised
    assert normalised is not None
    unit, inverse_scale = normalised.unit[::group], normalised.inverse_scale[0]
    if normalised.normalisation.turned:
        unit = head_map.waves.turn_back(unit)
    direction = torch.einsum("hbte,hie->bti", unit, weight)
    y = parts.w[0][:, rows, None] * direction
    for number, term in enumerate(parts.terms):
        # The scale moves what is read of the residual stream; the constant coordinate reads the biases.
        read = activation[:, rows, :-1] * direction[..., :-1] if number == 0 else direction[..., -1:]
        y = y + term.c[0][:, rows, None] * term.y[:, rows] * read.sum(-1, keepdim=True)
    return -y * inverse_scale / (len(weight) * weight.shape[-1])
