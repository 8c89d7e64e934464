"""Sums over position pairs for an attention branch's Jacobian Gram, by pairs of heads (symbols as in `jacobian.py`).

Of `(a_g,ts W_V^g + W_K^g q_g,t^T u_g,ts) Ω_gh (…)_h^T`, what stands between the weights:

    value_value    sum a_g a_h
    value_key      sum a_g u_h^T q_h
    key_key        sum (u_g Ω_gh u_h^T) q_g^T q_h

One head `g` is taken with all others at a time. `u` is `b (v_s - z_t)`, so whatever is summed over keys or over queries
only is summed there first, in a product. With rotary positions a query is turned back by every key's position, and only
what they share, the overlap `(v_g,s - z_g,t) Ω_gh (v_h,s - z_h,t)^T`, is made pair by pair. Where keys are normalised,
or scores have a soft cap, a query pulled back through every key is made pair by pair, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.head_maps import HeadMap
from libcore.sections.attention.parts import AttentionParts
from libcore.sections.attention.rotary import Waves
from libcore.streams import float64_zeros

KEPT_VALUES = 2**19
"""Sums by key are kept over all inputs, and turned back once, where they are no more numbers."""


@dataclass(frozen=True)
class PairBlock:
    """Some queries with some keys: the parts there, and the rows of both among all."""

    queries: slice | Tensor
    keys: slice
    a: Float[Tensor, "head batch query key"]
    weighted_a: Float[Tensor, "head batch query key"]
    b: Float[Tensor, "head batch query key"]
    weighted_b: Float[Tensor, "head batch query key"]
    q: Float[Tensor, "head batch query d_head"]
    v: Float[Tensor, "head batch key d_value"]
    z: Float[Tensor, "head batch query d_value"]
    key_map: HeadMap
    is_plain: bool

    @classmethod
    def of(cls, parts: AttentionParts, queries: slice | Tensor, keys: slice) -> PairBlock:
        """Of these rows of both."""
        a = parts.a[:, :, queries, keys].contiguous()
        b = a if parts.b is parts.a else parts.b[:, :, queries, keys].contiguous()
        q, z, w = parts.q[:, :, queries], parts.z[:, :, queries], parts.w[:, :, None, keys]
        weighted_a = a * w
        weighted_b = weighted_a if b is a else b * w
        pairs = (a, weighted_a, b, weighted_b, q, parts.v[:, :, keys], z)
        return cls(queries, keys, *pairs, parts.key_map.at(keys), parts.is_plain)

    @cached_property
    def q_by_key(self) -> Float[Tensor, "head batch query key d_head"]:
        """Queries pulled back through every key."""
        return self.key_map.for_each_query().pull_back(self.q[..., None, :].expand(*self.a.shape, -1))

    def overlap(
        self, g: int, heads: slice, Omega: Float[Tensor, "head head d_value d_value"]
    ) -> Float[Tensor, "h batch query key"]:
        """`(v_gs - z_gt) Ω_gh (v_hs - z_ht)^T` of these heads `h`, in one product."""
        v_Omega, z_Omega = (through(part[g], Omega[g, heads]) for part in (self.v, self.z))
        v, z = self.v[heads], self.z[heads]
        of_v, of_z = (v_Omega * v).sum(-1, keepdim=True), (z_Omega * z).sum(-1, keepdim=True)
        of_queries = torch.cat([z_Omega, z, torch.ones_like(of_z), of_z], -1)
        return of_queries @ torch.cat([-v, -v_Omega, of_v, torch.ones_like(of_v)], -1).mT


class PairSums:
    """The sums so far, float64; of `value_value` and `key_key` those of heads `h >= g` only."""

    def __init__(self, Omega: Float[Tensor, "head head d_value d_value"], d_head: int, scale: float) -> None:
        n_heads, _, d_value, _ = Omega.shape
        self.Omega, self.scale, self.d_head = Omega, scale, d_head
        self.value_value = float64_zeros(n_heads, n_heads, like=Omega)
        self.value_key = float64_zeros(n_heads, n_heads, d_value, d_head, like=Omega)
        self.by_key: Float[Tensor, "head head key d_head_squared"] | None = None
        self.waves: Waves | None = None
        self._key_key = float64_zeros(n_heads, n_heads, d_head, d_head, like=Omega)

    def begin(self, waves: Waves) -> None:
        """Before the first chunk: waves of all keys."""
        if self.waves is None:
            self.waves = waves
            n_heads, n_keys = len(self.Omega), len(waves.cos)
            if n_heads**2 * n_keys * self.d_head**2 <= KEPT_VALUES:
                self.by_key = float64_zeros(n_heads, n_heads, n_keys, self.d_head**2, like=self.Omega)

    def add(self, block: PairBlock, g: int, overlap: Float[Tensor, "h batch query key"] | None) -> None:
        """Take a head `g` with all `h >= g` in, in a block of pairs; `overlap` where keys turn queries."""
        if not block.is_plain:
            assert overlap is not None
            self._add_pair_by_pair(block, g, overlap)
            return
        a_a = block.weighted_a[g] * block.weighted_a[g:]
        if overlap is None:
            self._add_unturned(block, g, a_a)
        else:
            self._add_turned(block, g, a_a, overlap)

    def _add_unturned(self, block: PairBlock, g: int, a_a: Float[Tensor, "h batch query key"]) -> None:
        """Keys first: what remains are sums over queries."""
        q, v, z, Omega = block.q[g:], block.v[g:], block.z[g:], self.Omega[g, g:]
        v_g, d_value = block.v[g].expand_as(v), v.shape[-1]
        v_Omega_v = (through(block.v[g], Omega) * v).sum(-1, keepdim=True)
        of_keys = torch.cat([v, v_g, v_Omega_v, torch.ones_like(v_Omega_v)], -1)
        sum_v, sum_v_g, overlap, sum_a = (a_a @ of_keys).split((d_value, d_value, 1, 1), dim=-1)
        # sum_s a a (v_gs - z_gt) Ω (v_hs - z_ht)^T, a product of sums but for its first term.
        z_Omega, sum_v_Omega = through(block.z[g], Omega), (sum_v_g.flatten(1, 2) @ Omega).view_as(sum_v_g)
        overlap = overlap + ((sum_a * z_Omega - sum_v_Omega) * z - z_Omega * sum_v).sum(-1, keepdim=True)
        self._key_key[g, g:] += block.q[g].flatten(0, 1).mT @ (q * overlap).flatten(1, 2) / self.scale**2
        self.value_value[g, g:] += sum_a.flatten(1).sum(1)
        self._add_value_key(
            g,
            (sum_v - sum_a * z).flatten(1, 2).mT @ q.flatten(1, 2),
            (sum_v_g - sum_a * block.z[g]).flatten(1, 2).mT @ block.q[g].flatten(0, 1),
        )

    def _add_turned(
        self,
        block: PairBlock,
        g: int,
        a_a: Float[Tensor, "h batch query key"],
        overlap: Float[Tensor, "h batch query key"],
    ) -> None:
        """Every key turns queries its own way."""
        waves, d_head, q, q_g = block.key_map.waves, self.d_head, block.q[g:], block.q[g]
        of_queries = torch.cat([q, q_g.expand_as(q), torch.ones_like(q[..., :1])], -1)
        sums = (of_queries.mT @ a_a).mT
        sum_q, sum_q_g, sum_a = sums.split((d_head, d_head, 1), dim=-1)
        self.value_value[g, g:] += sum_a.flatten(1).sum(1)
        turned = waves.turned_back_by_each(torch.stack([q, q_g.expand_as(q)]), a_a).flatten(2, 3)
        self._add_value_key(
            g,
            block.v[g:].flatten(1, 2).mT @ waves.turn_back(sum_q).flatten(1, 2)
            - block.z[g:].flatten(1, 2).mT @ turned[0],
            block.v[g].flatten(0, 1).mT @ waves.turn_back(sum_q_g).flatten(1, 2)
            - block.z[g].flatten(0, 1).mT @ turned[1],
        )
        q_q = (q_g[..., :, None] * q[..., None, :]).flatten(-2)
        by_key = (a_a.mul_(overlap).mT @ q_q).sum(1)
        if self.by_key is None:
            self._key_key[g, g:] += self._turned_back(by_key, waves)
        else:
            self.by_key[g, g:, block.keys] += by_key

    def _add_pair_by_pair(self, block: PairBlock, g: int, overlap: Float[Tensor, "h batch query key"]) -> None:
        """A query pulled back through every key, another for every input."""
        q, v, z = block.q_by_key, block.v, block.z
        self.value_value[g, g:] += (block.weighted_a[g] * block.weighted_a[g:]).flatten(1).sum(1)
        a_b = block.weighted_a[g] * block.weighted_b[g:]
        of_h = v_less_z_q(a_b, v[g:], z[g:], q[g:])
        b_a = block.weighted_b[g] * block.weighted_a[g:]
        of_g = v_less_z_q(b_a, v[g].expand_as(v[g:]), z[g].expand_as(z[g:]), q[g].expand_as(q[g:]))
        self._add_value_key(g, of_h, of_g)
        b_b = block.weighted_b[g] * block.weighted_b[g:] * overlap
        through = (b_b[..., None] * q[g:]).flatten(1, 3)
        self._key_key[g, g:] += q[g].flatten(0, 2).mT @ through / self.scale**2

    def _turned_back(
        self, by_key: Float[Tensor, "*head key d_head_squared"], waves: Waves
    ) -> Float[Tensor, "*head d_head d_head"]:
        """Both queries by every key's position, then all keys together."""
        turned = waves.turn_back(by_key.unflatten(-1, (self.d_head, -1)).transpose(-3, -2))
        return waves.turn_back(turned.transpose(-3, -1)).transpose(-3, -1).sum(-2) / self.scale**2

    def _add_value_key(self, g: int, u_q: Tensor, u_q_g: Tensor) -> None:
        """`a_g u_h^T q_h`, and with heads exchanged."""
        self.value_key[g, g:] += u_q / self.scale
        self.value_key[g + 1 :, g] += u_q_g[1:] / self.scale

    @property
    def key_key(self) -> Float[Tensor, "head head d_head d_head"]:
        """Sums kept by key among them."""
        if self.by_key is None or self.waves is None:
            return self._key_key
        return self._key_key + self._turned_back(self.by_key, self.waves)


def v_less_z_q(
    pairs: Float[Tensor, "h batch query key"],
    v: Float[Tensor, "h batch key d_value"],
    z: Float[Tensor, "h batch query d_value"],
    q: Float[Tensor, "h batch query key d_head"],
) -> Float[Tensor, "h d_value d_head"]:
    """`sum_ts pairs_ts (v_s - z_t)^T q_ts`."""
    by_key = (pairs.mT[..., None, :] @ q.transpose(2, 3)).squeeze(-2)
    by_query = (pairs[..., None, :] @ q).squeeze(-2)
    return v.flatten(1, 2).mT @ by_key.flatten(1, 2) - z.flatten(1, 2).mT @ by_query.flatten(1, 2)


def through(
    values: Float[Tensor, "batch position d_value"], Omega: Float[Tensor, "h d_value d_value"]
) -> Float[Tensor, "h batch position d_value"]:
    """`values @ Ω_h` for every head `h`, in one product, whatever the number of inputs."""
    flat = values.flatten(0, 1) @ Omega.transpose(0, 1).flatten(1)
    return flat.view(*values.shape[:2], *Omega.shape[:2]).permute(2, 0, 1, 3)
