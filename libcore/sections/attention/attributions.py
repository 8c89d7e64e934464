"""An attention branch's part of the attributions: eq. 10 into eq. 7, before they are squared.

For each output position `sum_s fhat_sj (C⁺ T_h,ts)_j`, the change of every head's `z` by each input feature over all
the positions it is read at; then `O^h` makes output features of it. Symbols as in `jacobian.py`; rows of `W` are in
feature coordinates, `fhat` carries the weight `w`, and `r_n,sj = c_n,s (y_n,s C⁺)_j f_sj` is of a rank-one term:

    dz_t,jd =  W_V,jd sum_s a_ts fhat_sj  +  sum_s (q_t W_K,j) fhat_sj u_ts,d  +  fhat_tj (W_Q X_t)_jd
            +  sum_n sum_s r_n,sj (a_ts v_n,sd + (q_t k_n,s) u_ts,d + δ_ts (q_n,t X_t)_d)

Every sum over `s` is a product with a matrix of keys by features, for all heads at once. With rotary positions
`q_t W_K,j` is another number for every key: `rotary_attributions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.jacobian import parts_at_point
from libcore.sections.attention.rotary_attributions import RotaryAttributionPoint, RotaryAttributionWeights
from libcore.sections.branch import AddAttributions, Attributions, Positions


def attention_attributions(
    attention: Attention, basis: Basis, next_basis: Basis, quadrature: Quadrature, positions: Positions
) -> Attributions:
    """Sum over the path's points: attributions are linear in the Jacobian."""
    O = (attention.W_O @ next_basis.to_basis).flatten(0, 1).T.contiguous()  # noqa: E741 - the page's symbol
    attends = attention.attends(positions)
    point_at = points_of(attention, basis, positions)

    def attributions(features: Tensor) -> AddAttributions:
        points = [point_at(features, *point) for point in quadrature]

        def add(attribution: Float[Tensor, "feature_out batch some feature_in"], rows: slice) -> None:
            keys = range_of(attends[rows].any(0))
            dz = sum_of([point.dz(rows, keys) for point in points])
            attribution.view(len(attribution), -1).addmm_(O, dz.reshape(O.shape[1], -1))

        return add

    return attributions


def points_of(
    attention: Attention, basis: Basis, positions: Positions
) -> Callable[[Tensor, float, float], AttributionPoint | RotaryAttributionPoint]:
    """From a chunk's features and a point of the path with its weight."""
    if attention.rotary is None and attention.keys is None:
        return partial(AttributionPoint, AttributionWeights(attention, basis, positions))
    return partial(RotaryAttributionPoint, RotaryAttributionWeights(attention, basis, positions))


class AttributionWeights:
    """Weights in feature coordinates, `[head, d_head, feature_in]`."""

    def __init__(self, attention: Attention, basis: Basis, positions: Positions) -> None:
        self.attention, self.basis, self.positions = attention, basis, positions
        self.own_keys = positions.own()[1]
        self.Q, self.K, self.V = (
            (basis.from_basis @ weight).mT.contiguous() for weight in (attention.W_Q, attention.W_K, attention.W_V)
        )


class AttributionPoint:
    """One point of the path on one chunk of inputs."""

    def __init__(
        self, weights: AttributionWeights, features: Float[Tensor, "batch key feature_in"], alpha: float, weight: float
    ) -> None:
        self.weights, self.scale = weights, weights.attention.scale
        positions, basis = weights.positions, weights.basis
        parts = parts_at_point(weights.attention, basis.activation(features), positions, alpha, weight)
        # The weights and coefficients are functions of the activation alone, so the same for all heads.
        self.fhat = features * parts.w[0, ..., None]
        self.own_fhat = positions.at_queries(self.fhat)
        self.terms = parts.all_terms
        self.along = [features * (term.y @ basis.from_basis.T) * term.c[0, ..., None] for term in self.terms]
        self.a, self.b = (pairs.permute(1, 2, 0, 3) for pairs in (parts.a, parts.b))
        self.z, self.q = (part.permute(1, 2, 0, 3).contiguous() for part in (parts.z, parts.q))
        self.v = parts.v.permute(1, 0, 3, 2).contiguous()
        self.X = parts.X.permute(0, 1, 2, 4, 3)
        self.own_q_X = [(term.q[..., None, :] @ parts.X).squeeze(-2).permute(1, 2, 0, 3) for term in self.terms]

    def dz(self, rows: slice, keys: slice) -> Float[Tensor, "head d_value batch some feature_in"]:
        """At some output positions, which attend to no others than these keys."""
        a, b = (pairs[:, rows, :, keys].contiguous() for pairs in (self.a, self.b))
        z, q = self.z[:, rows], self.q[:, rows]
        fhat = self.fhat[:, keys]
        u = (self.v[:, None, ..., keys] - z[..., None]).mul_(b[..., None, :]).div_(self.scale)
        dz = self._through_own_query(rows)
        dz.addcmul_(summed(a, fhat)[..., None, :], self.weights.V)
        q_W_K = torch.einsum("bthe,hej->bthj", q, self.weights.K)
        dz.addcmul_(summed(u.flatten(2, 3), fhat).view_as(dz), q_W_K[..., None, :])
        for n, (term, along) in enumerate(zip(self.terms, self.along, strict=True)):
            q_k = torch.einsum("bthe,hbse->bths", q, term.k[:, :, keys])
            through = u * q_k[..., None, :]
            through.addcmul_(a[..., None, :], term.v[:, :, keys].permute(1, 0, 3, 2)[:, None])
            some = torch.arange(through.shape[1], device=through.device)
            through[:, some, ..., self.weights.own_keys[rows] - keys.start] += self.own_q_X[n][:, rows].transpose(0, 1)
            dz.view(len(dz), -1, dz.shape[-1]).baddbmm_(through.flatten(1, 3), along[:, keys])
        return dz.permute(2, 3, 0, 1, 4)

    def _through_own_query(self, rows: slice) -> Float[Tensor, "batch some head d_value feature_in"]:
        """An output position's own features, through its query."""
        X = self.X[:, :, rows]
        W_Q_X = (X.flatten(1, 3) @ self.weights.Q).unflatten(1, X.shape[1:4]).permute(1, 2, 0, 3, 4)
        return torch.mul(W_Q_X, self.own_fhat[:, rows, None, None], out=W_Q_X.new_empty(W_Q_X.shape))


def summed(
    pairs: Float[Tensor, "batch query n key"], fhat: Float[Tensor, "batch key feature_in"]
) -> Float[Tensor, "batch query n feature_in"]:
    """Over keys, all of an example's in one product."""
    return (pairs.flatten(1, 2) @ fhat).unflatten(1, pairs.shape[1:3])


def range_of(attended: Tensor) -> slice:
    """From the first to the last key that is attended to."""
    keys = torch.nonzero(attended).flatten()
    return slice(int(keys[0]), int(keys[-1]) + 1)


def sum_of(terms: list[Tensor]) -> Tensor:
    """Into the first of them."""
    for term in terms[1:]:
        terms[0].add_(term)
    return terms[0]
