"""An attention branch's part of the attributions: eq. 10 into eq. 7, before they are squared.

For each output position, `sum_s fhat_s,j (C⁺ T_h,ts)_j`, the change of every head's `z` by each input feature over all
the positions it is read at; `O^h` then makes output features of it. Symbols as in `jacobian.py`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.jacobian import AttentionParts, parts_at_point
from libcore.sections.branch import Attributions, Positions


def attention_attributions(
    attention: Attention, basis: Basis, next_basis: Basis, quadrature: Quadrature
) -> Attributions:
    """Sum over the path's points: attributions are linear in the Jacobian."""
    weights = tuple(basis.from_basis @ weight for weight in (attention.W_Q, attention.W_K, attention.W_V))
    O = attention.W_O @ next_basis.to_basis  # noqa: E741 - the page's symbol

    def attributions(features: Tensor, positions: Positions) -> Tensor:
        activation = basis.activation(features)
        total: Tensor | None = None
        for alpha, weight in quadrature:
            parts = parts_at_point(attention, activation, positions, alpha, weight)
            heads = [HeadAttribution(h, attention, parts, features, basis, weights) for h in range(len(O))]
            dz = torch.cat([head.dz(positions) for head in heads], dim=-1)
            at_point = dz @ O.flatten(0, 1)
            total = at_point if total is None else total.add_(at_point)
        assert total is not None
        return total

    return attributions


class HeadAttribution:
    """One head's `sum_s fhat_sj (dz_t / dfhat_sj)`: through its values, keys and query, and along rank-one terms."""

    def __init__(
        self,
        h: int,
        attention: Attention,
        parts: AttentionParts,
        features: Float[Tensor, "batch key feature_in"],
        basis: Basis,
        weights: tuple[Tensor, ...],
    ) -> None:
        self.attention = attention
        self.W_Q, self.W_K, self.W_V = (weight[h] for weight in weights)
        self.a, self.q, self.v, self.z, self.X = (p[:, h] for p in (parts.a, parts.q, parts.v, parts.z, parts.X))
        self.fhat = features * parts.w[:, h, :, None]
        self.terms = [(term.q[:, h], term.k[:, h], term.v[:, h]) for term in parts.terms]
        self.along = [(term.y @ basis.from_basis.T) * features * term.c[:, h, :, None] for term in parts.terms]

    def dz(self, positions: Positions) -> Float[Tensor, "batch query feature_in d_value"]:
        """At every output position."""
        dz = self._through_own_query(positions)
        if self.attention.rotary is None:
            sum_fhat, sum_fhat_v = self._weighted_by(self.a, self.fhat)
            q_W_K = (self.q @ self.W_K.T / self.attention.scale)[..., None]
            dz += sum_fhat[..., None] * self.W_V + q_W_K * (sum_fhat_v - sum_fhat[..., None] * self.z[:, :, None])
        else:
            dz += (self.a @ self.fhat)[..., None] * self.W_V
            for queries, keys in self.attention.key_blocks(positions):
                dz[:, queries] += self._through_turned_keys(queries, keys, positions)
        for (_, k, v), along in zip(self.terms, self.along, strict=True):
            a_q_k = self.a * (self.q @ k.transpose(-1, -2)) / self.attention.scale
            sum_along, sum_along_v = self._weighted_by(a_q_k, along)
            dz += sum_along_v - sum_along[..., None] * self.z[:, :, None]
            dz += (self.a @ outer(along, v)).unflatten(-1, dz.shape[2:])
        return dz

    def _weighted_by(self, pairs: Tensor, fhat: Tensor) -> tuple[Tensor, Tensor]:
        """`sum_s pairs_ts fhat_sj`, and the same times `v_s`."""
        with_v = (pairs @ outer(fhat, self.v)).unflatten(-1, (fhat.shape[-1], -1))
        return pairs @ fhat, with_v

    def _through_turned_keys(self, queries: Tensor, keys: Tensor, positions: Positions) -> Tensor:
        """Through keys whose positions turn them, so that each pair of positions has its own product with a query."""
        k = self.attention.turn((self.fhat[:, keys, :, None] * self.W_K).transpose(1, 2), positions.keys[keys])
        q_k = (self.q[:, queries] @ k.flatten(1, 2).transpose(-1, -2)).unflatten(-1, k.shape[1:3])
        a = self.a[:, queries[:, None], keys, None] / self.attention.scale
        u = a * (self.v[:, None, keys] - self.z[:, queries, None])
        return q_k @ u

    def _through_own_query(self, positions: Positions) -> Tensor:
        """An output position's own features, through its query."""
        row, column = positions.own()
        assert len(row) == len(positions.queries)
        dz = torch.einsum("btj,je,bted->btjd", self.fhat[:, column], self.W_Q, self.X)
        for (q, _, _), along in zip(self.terms, self.along, strict=True):
            q_X = torch.einsum("bte,bted->btd", q, self.X)
            dz += along[:, column, :, None] * q_X[:, :, None, :]
        return dz


def outer(
    fhat: Float[Tensor, "batch key feature_in"], v: Float[Tensor, "batch key d_value"]
) -> Float[Tensor, "batch key feature_in_d_value"]:
    """Every feature with every value coordinate, at the same position."""
    return (fhat[..., None] * v[:, :, None, :]).flatten(2)
