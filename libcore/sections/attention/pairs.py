"""Sums over position pairs for an attention branch's Jacobian Gram, by pairs of heads (symbols as in `jacobian.py`).

Of `(a_g,ts W_V^g + W_K^g q_g,t^T u_g,ts) Ω_gh (…)_h^T`, what stands between the weights:

    value_value    sum a_g a_h
    value_key      sum a_g u_h^T q_h
    key_key        sum (u_g Ω_gh u_h^T) q_g^T q_h

`u` is `a (v_s - z_t)`, so whatever is summed over keys or over queries only is summed there first, in a product. With
rotary positions a query is turned back by every key's position, and only what they share, the overlap
`(v_g,s - z_g,t) Ω_gh (v_h,s - z_h,t)^T`, is made pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.sections.attention.jacobian import AttentionParts
from libcore.sections.attention.rotary import Waves
from libcore.streams import float64_zeros, within_cache

VALUES_IN_CACHE = 2**20
"""Numbers worked on at a time, of the pairs of positions of some pairs of heads."""


@dataclass(frozen=True)
class PairBlock:
    """Some queries with some keys: the parts there, and the rows of both among all."""

    queries: slice | Tensor
    keys: slice
    a: Float[Tensor, "head batch query key"]
    w: Float[Tensor, "head batch 1 key"]
    q: Float[Tensor, "head batch query d_head"]
    v: Float[Tensor, "head batch key d_value"]
    z: Float[Tensor, "head batch query d_value"]
    waves: Waves

    @classmethod
    def of(cls, parts: AttentionParts, queries: slice | Tensor, keys: slice, waves: Waves) -> PairBlock:
        """`waves` are of all keys."""
        a = parts.a[:, :, queries, keys].contiguous()
        q, z = parts.q[:, :, queries], parts.z[:, :, queries]
        return cls(queries, keys, a, parts.w[:, :, None, keys], q, parts.v[:, :, keys], z, waves.at(keys))

    def heads_at_a_time(self, values_per_pair_of_positions: int) -> int:
        """Pairs of heads that are worked on together, so that what they take stays in the cache."""
        values_per_pair = values_per_pair_of_positions * self.a[0].numel()
        return max(1, within_cache(len(self.a) ** 2 * values_per_pair, VALUES_IN_CACHE, self.a) // values_per_pair)

    def overlap(
        self, g: Int[Tensor, " pair"], h: Int[Tensor, " pair"], Omega: Float[Tensor, "pair d_value d_value"]
    ) -> Float[Tensor, "pair batch query key"]:
        """`(v_gs - z_gt) Ω_gh (v_hs - z_ht)^T`, in one product."""
        v_Omega, z_Omega = through(self.v[g], Omega), through(self.z[g], Omega)
        v, z = self.v[h], self.z[h]
        of_v, of_z = (v_Omega * v).sum(-1, keepdim=True), (z_Omega * z).sum(-1, keepdim=True)
        of_queries = torch.cat([z_Omega, z, torch.ones_like(of_z), of_z], -1)
        return of_queries @ torch.cat([-v, -v_Omega, of_v, torch.ones_like(of_v)], -1).mT


class PairSums:
    """The sums so far, float64; of `value_value` and `key_key` those of heads `h >= g` only."""

    def __init__(self, Omega: Float[Tensor, "head head d_value d_value"], d_head: int, scale: float) -> None:
        n_heads, _, d_value, _ = Omega.shape
        self.Omega, self.scale, self.d_head = Omega, scale, d_head
        self.pairs = torch.triu_indices(n_heads, n_heads, device=Omega.device)
        self.value_value = float64_zeros(n_heads, n_heads, like=Omega)
        self.value_key = float64_zeros(n_heads, n_heads, d_value, d_head, like=Omega)
        self.key_key = float64_zeros(n_heads, n_heads, d_head, d_head, like=Omega)

    def add(self, block: PairBlock) -> None:
        """Take a block of position pairs in."""
        a = block.a * block.w
        turned = bool(block.waves.cos.shape[-1])
        per_pair = 3 + (self.d_head**2 // block.a.shape[-1] if turned else 0)
        add = self._add_turned if turned else self._add_unturned
        for g, h in self.pairs.split(block.heads_at_a_time(per_pair), dim=1):
            add(g, h, a[g].mul_(a[h]), block)

    def _add_unturned(self, g: Tensor, h: Tensor, a_a: Float[Tensor, "pair batch query key"], block: PairBlock) -> None:
        """Keys first: what remains are sums over queries."""
        q, v, z, z_g, Omega = block.q[h], block.v[h], block.z[h], block.z[g], self.Omega[g, h]
        v_g, d_value = block.v[g], v.shape[-1]
        of_keys = torch.cat([v, v_g, (through(v_g, Omega) * v).sum(-1, keepdim=True), torch.ones_like(v[..., :1])], -1)
        sum_v, sum_v_g, overlap, sum_a = (a_a @ of_keys).split((d_value, d_value, 1, 1), dim=-1)
        # sum_s a a (v_gs - z_gt) Ω (v_hs - z_ht)^T, a product of sums but for its first term.
        z_Omega = through(z_g, Omega)
        overlap = overlap + ((sum_a * z_Omega - through(sum_v_g, Omega)) * z - z_Omega * sum_v).sum(-1, keepdim=True)
        self.key_key[g, h] += block.q[g].flatten(1, 2).mT @ (q * overlap).flatten(1, 2) / self.scale**2
        self._add_values(g, h, sum_a)
        u_q = (sum_v - sum_a * z).flatten(1, 2).mT @ q.flatten(1, 2)
        u_q_g = (sum_v_g - sum_a * z_g).flatten(1, 2).mT @ block.q[g].flatten(1, 2)
        self._add_value_key(g, h, u_q, u_q_g)

    def _add_turned(self, g: Tensor, h: Tensor, a_a: Float[Tensor, "pair batch query key"], block: PairBlock) -> None:
        """Every key turns queries its own way."""
        waves, d_head, n_pairs = block.waves, self.d_head, len(g)
        both = torch.cat([h, g])
        q, v, z = block.q[both], block.v[both], block.z[both]
        q_h, q_g = q[:n_pairs], q[n_pairs:]
        sums = torch.cat([q_h, q_g, torch.ones_like(q_g[..., :1])], -1).mT @ a_a
        sum_q = torch.cat([sums[..., :d_head, :], sums[..., d_head:-1, :]]).mT
        self._add_values(g, h, sums[..., -1, :])
        u_q = v.flatten(1, 2).mT @ waves.turn_back(sum_q).flatten(1, 2)
        u_q -= z.flatten(1, 2).mT @ waves.turned_back_by_each(q.unflatten(0, (2, -1)), a_a).flatten(0, 1).flatten(1, 2)
        self._add_value_key(g, h, u_q[:n_pairs], u_q[n_pairs:])
        u_u = a_a.mul_(block.overlap(g, h, self.Omega[g, h]))
        q_q = (q_g[..., :, None] * q_h[..., None, :]).flatten(-2)
        by_key = (u_u.mT @ q_q).sum(1).unflatten(-1, (d_head, -1))
        turned = waves.turn_back(by_key.transpose(1, 2))
        self.key_key[g, h] += waves.turn_back(turned.transpose(1, 3)).transpose(1, 3).sum(2) / self.scale**2

    def _add_values(self, g: Tensor, h: Tensor, sum_a: Float[Tensor, "pair batch *positions"]) -> None:
        self.value_value[g, h] += sum_a.flatten(1).sum(1)

    def _add_value_key(self, g: Tensor, h: Tensor, u_q: Tensor, u_q_g: Tensor) -> None:
        """`a_g u_h^T q_h`, and with heads exchanged."""
        self.value_key[g, h] += u_q / self.scale
        differ = g != h
        self.value_key[h[differ], g[differ]] += u_q_g[differ] / self.scale


def through(
    values: Float[Tensor, "pair batch position d_value"], Omega: Float[Tensor, "pair d_value d_value"]
) -> Float[Tensor, "pair batch position d_value"]:
    """`values @ Ω`, one product for a pair of heads, whatever the number of inputs."""
    return (values.flatten(1, 2) @ Omega).view_as(values)
