"""The parts of an attention branch's Jacobian on one chunk of inputs (symbols as in `jacobian.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.head_maps import HeadMap
from libcore.sections.branch import Positions


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

    `q` and `k` are turned by their own positions, and normalised; the rank-one terms' keys are what that makes of a
    change of what is read. Heads come first, so that what two of them share is a product of contiguous arrays.
    """

    a: Float[Tensor, "head batch query key"]
    b: Float[Tensor, "head batch query key"]
    w: Float[Tensor, "head batch key"]
    q: Float[Tensor, "head batch query d_head"]
    k: Float[Tensor, "head batch key d_head"]
    v: Float[Tensor, "head batch key d_value"]
    z: Float[Tensor, "head batch query d_value"]
    terms: tuple[RankOneTerm, ...]
    head_terms: tuple[RankOneTerm, ...]
    query_map: HeadMap
    key_map: HeadMap
    scale: float

    @property
    def all_terms(self) -> tuple[RankOneTerm, ...]:
        """Of the normalisation in front, and of heads."""
        return (*self.terms, *self.head_terms)

    @property
    def is_plain(self) -> bool:
        """Whether positions alone turn queries and keys, the same for all inputs, and `b` is `a`."""
        return self.b is self.a and self.query_map.normalised is None and self.key_map.normalised is None

    @cached_property
    def X(self) -> Float[Tensor, "head batch query d_head d_value"]:
        """Keys pulled back through the query. Many numbers, so made where they are asked for."""
        return keys_and_values_read(self.b, self.k, self.v, self.z, self.query_map).div_(self.scale)


class OwnPosition:
    """The parts where a position reads itself, `s = t`; `q` pulled back through its own key.

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
        self.q: Float[Tensor, "head batch query d_head"] = parts.key_map.at(self.column).pull_back(parts.q)
        v = parts.v[:, :, self.column]
        b = parts.b[:, :, self.row, self.column] * self.w
        self.u: Float[Tensor, "head batch query d_value"] = b[..., None] * (v - parts.z) / parts.scale

    @cached_property
    def X(self) -> Float[Tensor, "head batch query d_head d_value"]:
        """Likewise."""
        return self.parts.X * self.w[..., None, None]


class OwnTerm:
    """One rank-one term where a position reads itself.

    Attributes:
        y: `y` there.
        through_query: `p`'s part through the query.
        p: all of it.
        a, u: without the weight.
    """

    def __init__(self, term: RankOneTerm, parts: AttentionParts, own: OwnPosition) -> None:
        row, column = own.row, own.column
        self.a: Float[Tensor, "head batch query 1"] = parts.a[:, :, row, column, None]
        self.u: Float[Tensor, "head batch query d_value"] = (
            parts.b[:, :, row, column, None] * (parts.v[:, :, column] - parts.z) / parts.scale
        )
        c = term.c[:, :, column, None]
        self.y: Float[Tensor, "batch query d_in"] = term.y[:, column]
        self.through_query: Float[Tensor, "head batch query d_value"] = c * (term.q[..., None, :] @ parts.X).squeeze(-2)
        q_k = (parts.q * term.k[:, :, column]).sum(-1, keepdim=True)
        self.p = c * (self.a * term.v[:, :, column] + q_k * self.u) + self.through_query


def keys_and_values_read(
    b: Float[Tensor, "head batch query key"],
    k: Float[Tensor, "head batch key d_head"],
    v: Float[Tensor, "head batch key d_value"],
    z: Float[Tensor, "head batch query d_value"],
    query_map: HeadMap,
) -> Float[Tensor, "head batch query d_head d_value"]:
    """`sum_s b_ts k_s^T (v_s - z_t)`, keys pulled back through the query."""
    if b.shape[2] < k.shape[2]:
        read = (b[..., None] * k[:, :, None]).mT @ (v[:, :, None] - z[..., None, :])
    else:
        with_v = (k[..., None] * v[..., None, :]).flatten(-2)
        sum_k_v, sum_k = (b @ torch.cat([with_v, k], -1)).split((with_v.shape[-1], k.shape[-1]), dim=-1)
        read = sum_k_v.unflatten(-1, (k.shape[-1], -1)) - sum_k[..., None] * z[..., None, :]
    if query_map.normalised is None:
        return query_map.waves.turn_columns_back(read.transpose(2, 3)).transpose(2, 3)
    return query_map.of_rows().pull_back(read.mT).mT
