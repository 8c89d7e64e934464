"""An attention branch's part of the attributions where positions turn keys: eq. 10 into eq. 7.

Features of every key are turned otherwise, so each pair of positions has its own product of a query with them. It takes
what queries and keys read of each feature by itself: `fhat` being the features times the weight `w`, and
`r_n,sj = c_n,s (y_n,s C⁺)_j f_sj` of a normalisation's rank-one terms `n`,

    k_sj = fhat_sj W_K,j + sum_n r_n,sj k_n,s      and likewise for queries,

where keys are normalised, what that makes of a change of what they read.

Values need not be taken so. The scale's term `n = 0` moves them along themselves but for their bias: `r_0,sj v_0,s` is
`r_sj (v_s - f_s b)`, `f_s` the constant coordinate; and `a_ts v_s` is there in the sum over keys, but for `a_ts z_t`.
With the scale of scores in `q_t`:

    dz_t,jd = sum_s (q_t k_sj + r_sj) a_ts (v_s - z_t)_d
            + W_V,jd sum_s a_ts fhat_sj  +  z_td sum_s a_ts r_sj  +  b_d sum_s a_ts (r_1,sj - f_s r_sj)
            + fhat_tj (W_Q X_t)_jd  +  sum_n r_n,tj (q_n,t X_t)_d

The first sum is most of the work. `r_sj` is one more coordinate of keys there, where queries are 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.sections.attention.attention import KEYS_PER_BLOCK, Attention
from libcore.sections.attention.jacobian import parts_at_point
from libcore.sections.attention.parts import AttentionParts
from libcore.sections.branch import Positions


class RotaryAttributionWeights:
    """Weights in feature coordinates; keys turned by their positions, unless they are normalised, too."""

    def __init__(self, attention: Attention, basis: Basis, positions: Positions) -> None:
        self.attention, self.basis, self.positions = attention, basis, positions
        self.Q, K, self.V = (
            (basis.from_basis @ weight).mT.contiguous() for weight in (attention.W_Q, attention.W_K, attention.W_V)
        )
        by_position = K[:: attention.group, :, None].repeat(1, 1, positions.count, 1)
        if attention.keys is None:
            by_position = attention.waves(positions.keys, by_position).turn_columns(by_position)
        self.K: Float[Tensor, "key_value_head d_head key feature_in"] = by_position


class RotaryAttributionPoint:
    """One point of the path on one chunk of inputs."""

    def __init__(
        self,
        weights: RotaryAttributionWeights,
        features: Float[Tensor, "batch key feature_in"],
        alpha: float,
        weight: float,
    ) -> None:
        self.weights, attention, basis, positions = weights, weights.attention, weights.basis, weights.positions
        activation = basis.activation(features)
        parts = parts_at_point(attention, activation, positions, alpha, weight)
        # The weights and coefficients are functions of the activation alone, so the same for all heads.
        w = parts.w[0, ..., None]
        fhat = features * w
        directions = [features * (term.y @ basis.from_basis.T) for term in parts.all_terms]
        of_all = zip(parts.all_terms, directions, strict=True)
        along = [term.c.amax(0)[..., None] * direction for term, direction in of_all]
        of_heads, along = along[len(parts.terms) :], along[: len(parts.terms)]
        # A value has the scale in it, which `c` has too.
        of_scale = [w**2 * (alpha / weight) * direction for direction in directions[: len(along[:1])]]
        of_bias = [r - alpha * activation[..., -1:] * of_scale[0] for r in along[1:]]
        self.read = torch.cat([fhat, *of_scale, *of_bias], -1)
        self.k = self._keys_read(fhat, [*along, *of_heads], of_scale, parts)
        self.slope = None if parts.b is parts.a else torch.where(parts.a > 0, parts.b / parts.a, 0.0).transpose(0, 1)
        q = parts.q.transpose(0, 1) / attention.scale
        q = torch.cat([q, torch.ones_like(q[..., : len(of_scale)])], -1)
        self.q: Float[Tensor, "batch key_value_head group query d_head_and_scale"] = q.unflatten(
            1, (-1, attention.group)
        )
        self.a, self.z, self.X = (part.transpose(0, 1).contiguous() for part in (parts.a, parts.z, parts.X.mT))
        self.v = parts.v.permute(1, 0, 3, 2).contiguous()
        biases = [term.v[:, :, :1].transpose(0, 1).expand_as(self.z) for term in parts.terms[1:]]
        self.values_read = [self.z, *biases][: len(along)]
        self.own_fhat, *self.own_along = (
            positions.at_queries(read)[:, None, :, None] for read in (fhat, *along, *of_heads)
        )
        self.own_q_X = [(term.q[..., None, :] @ parts.X).squeeze(-2).transpose(0, 1) for term in parts.all_terms]

    def _keys_read(
        self, fhat: Tensor, along: Sequence[Tensor], of_scale: Sequence[Tensor], parts: AttentionParts
    ) -> Float[Tensor, "batch key_value_head d_head_and_scale key feature_in"]:
        """What keys read of each feature, and `r` where there is a scale."""
        n_heads, d_head, n_keys, n_in = self.weights.K.shape
        read = fhat.new_empty(len(fhat), n_heads, d_head + len(of_scale), n_keys, n_in)
        k, group = read[:, :, :d_head], self.weights.attention.group
        if parts.key_map.normalised is None:
            torch.mul(self.weights.K, fhat[:, None, None], out=k)
        else:
            raw = (self.weights.K * fhat[:, None, None]).permute(1, 0, 3, 4, 2)
            k.copy_(parts.key_map.heads(slice(None, None, group)).of_rows().push_forward(raw).permute(1, 0, 4, 2, 3))
        for term, r in zip(parts.all_terms, along, strict=True):
            of_term = term.k[::group].permute(1, 0, 3, 2)
            k.addcmul_(of_term[..., None], r[:, None, None])
        for r in of_scale:
            read[:, :, d_head] = r[:, None]
        return read

    def dz(self, rows: slice, keys: slice) -> Float[Tensor, "head d_value batch some feature_in"]:
        """At some output positions, which attend to no others than these keys."""
        dz = self._through_own_query(rows)
        a, z = self.a[:, :, rows, keys].contiguous(), self.z[:, :, rows, :, None]
        read = torch.bmm(a.flatten(1, 2), self.read[:, keys]).view(*a.shape[:3], 1, -1).split(dz.shape[-1], -1)
        dz.addcmul_(self.weights.V[:, None], read[0])
        for value, of_value in zip(self.values_read, read[1:], strict=True):
            dz.addcmul_(value[:, :, rows, :, None], of_value)
        q = self.q[..., rows, :].flatten(2, 3).flatten(0, 1)
        for a_block, start in zip(
            a.split(KEYS_PER_BLOCK, -1), range(keys.start, keys.stop, KEYS_PER_BLOCK), strict=True
        ):
            block = slice(start, start + a_block.shape[-1])
            q_k = self._scores_moved(q, block, rows)
            u = (self.v[:, :, None, :, block] - z).mul_(a_block[..., None, :])
            dz.view(-1, *dz.shape[3:]).baddbmm_(u.flatten(0, 2), q_k.view(-1, u.shape[-1], dz.shape[-1]))
        return dz.permute(1, 3, 0, 2, 4)

    def _scores_moved(
        self, q: Float[Tensor, "batch_and_key_value_head group_and_query d_head_and_scale"], keys: slice, rows: slice
    ) -> Float[Tensor, "batch_and_key_value_head group_and_query key_and_feature_in"]:
        """`q_t k_sj + r_sj`; of scores with a soft cap its slope times the former, and the latter as it is."""
        k = self.k[..., keys, :].flatten(-2).flatten(0, 1)
        if self.slope is None:
            return torch.bmm(q, k)
        d_head, n_keys = self.weights.K.shape[1], keys.stop - keys.start
        slope = (
            self.slope[:, :, rows, keys].unflatten(1, (-1, self.weights.attention.group)).flatten(2, 3).flatten(0, 1)
        )
        q_k = torch.bmm(q[..., :d_head], k[:, :d_head]).unflatten(-1, (n_keys, -1)) * slope[..., None]
        return q_k.flatten(-2) + k[:, d_head:].sum(1, keepdim=True)

    def _through_own_query(self, rows: slice) -> Float[Tensor, "batch head some d_value feature_in"]:
        """An output position's own features, through its query."""
        X = self.X[:, :, rows]
        dz = (X.flatten(2, 3) @ self.weights.Q).unflatten(2, X.shape[2:4])
        dz *= self.own_fhat[:, :, rows]
        for q_X, r in zip(self.own_q_X, self.own_along, strict=True):
            dz.addcmul_(q_X[:, :, rows, :, None], r[:, :, rows])
        return dz
