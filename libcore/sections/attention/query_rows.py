"""Query rows `δ_ts W_Q^g X_g,t` of an attention branch's Jacobian, and what they share (symbols as in `jacobian.py`).

    query_query    sum X_g Ω_gh X_h^T
    key_query      sum q_g^T u_g,tt Ω_gh X_h^T
    value_query    sum a_g,tt X_h^T

`X_t = sum_s k_s^T u_ts` has no larger rank than there are keys, less one: `sum_s u_ts = 0`, so that

    X_t = sum_{s≠t} (k_s - k_t)^T u_ts,
    X_g,t Ω_gh X_h,t^T = sum_{s,r≠t} (k_s - k_t)_g^T (u_g,ts Ω_gh u_h,tr^T) (k_r - k_t)_h.

Where keys are few, what stands in the middle is one number per pair of heads and of other keys, in place of a product
of `d_head`-wide matrices; samples (inputs and output positions) then come last, so that all else is a sum over long
rows.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.parts import AttentionParts, OwnPosition
from libcore.sections.branch import Positions
from libcore.streams import float64_zeros, within_cache

VALUES_IN_CACHE = 2**17
"""Numbers worked on at a time where an intermediate is many times as large as what it comes from."""

LEAST_SAMPLES = 16
"""Worked on at a time, however wide the heads: a CPU is not fast at sums over fewer. Nine heads of width 64 take a
fifth less time so than one sample at a time."""


class QueryRowSums:
    """The sums so far, float64; of `query_query` those of heads `h >= g` only."""

    def __init__(self, Omega: Float[Tensor, "head head d_value d_value"], d_head: int) -> None:
        n_heads, _, d_value, _ = Omega.shape
        self.Omega = Omega
        self.query_query = float64_zeros(n_heads, n_heads, d_head, d_head, like=Omega)
        self.key_query = float64_zeros(n_heads, n_heads, d_head, d_head, like=Omega)
        self.value_query = float64_zeros(n_heads, n_heads, d_value, d_head, like=Omega)
        self.sum_X = float64_zeros(n_heads, d_head, d_value, like=Omega)

    def add(self, parts: AttentionParts, own: OwnPosition, positions: Positions) -> None:
        """Take a chunk in."""
        a, q, u = own.a.flatten(1, 2), own.q.flatten(1, 2), own.u.flatten(1, 2)
        n_heads, d_head, d_value = self.sum_X.shape
        if parts.is_plain and few_keys(positions.count, d_head):
            per_sample = n_heads * max(d_head, d_value) * max(1, positions.count - 1) ** 2
            in_pieces(self._add_few_keys, per_sample, -1, *other_keys(parts, own, positions), a, q.mT)
        else:
            in_pieces(self._add_X, 2 * n_heads * d_head * d_value, 1, own.X.flatten(1, 2), a, q, u)

    def _add_X(
        self,
        X: Float[Tensor, "head sample d_head d_value"],
        a: Float[Tensor, "head sample"],
        q: Float[Tensor, "head sample d_head"],
        u: Float[Tensor, "head sample d_value"],
    ) -> None:
        self.sum_X += X.sum(1)
        self.value_query += (a @ X.flatten(2)).unflatten(2, X.shape[2:]).transpose(0, 1).mT
        # Rows by head coordinate, so that a pair of heads is one product over samples and value coordinates.
        rows = X.transpose(1, 2).contiguous()
        for g in range(len(X)):
            rows_Omega = (rows[g:].flatten(1, 2) @ self.Omega[g, g:].mT).view_as(rows[g:])
            self.query_query[g, g:] += rows[g].flatten(1) @ rows_Omega.flatten(2).mT
            u_X = (u @ self.Omega[:, g]).transpose(0, 1) @ X[g].mT
            self.key_query[:, g] += q.mT @ u_X.transpose(0, 1)

    def _add_few_keys(
        self,
        k: Float[Tensor, "head d_head other sample"],
        u: Float[Tensor, "head d_value other sample"],
        a: Float[Tensor, "head sample"],
        q: Float[Tensor, "head d_head sample"],
    ) -> None:
        self.sum_X += k.flatten(2) @ u.flatten(2).mT
        for g in range(len(k)):
            self.value_query[g] += (u * a[g]).flatten(2) @ k.flatten(2).mT
            u_Omega = (self.Omega[g, g:].mT.flatten(0, 1) @ u[g].flatten(1)).view_as(u[g:])
            middle = (u_Omega.unsqueeze(3) * u[g:].unsqueeze(2)).sum(1)  # [h, other of g, other of h, sample]
            through = (middle[:, None] * k[g:].unsqueeze(2)).sum(3)
            self.query_query[g, g:] += k[g].flatten(1) @ through.flatten(2).mT
            # A query's own `u` is what all others sum to, with the other sign.
            self.key_query[g, g:] -= q[g] @ through.sum(2).mT
            self.key_query[g + 1 :, g] -= q[g + 1 :] @ (middle[1:].sum(2)[:, None] * k[g]).sum(2).mT


def few_keys(n_keys: int, d_head: int) -> bool:
    """Whether the numbers in the middle are fewer than those of `X`."""
    return (n_keys - 1) ** 2 <= d_head


def in_pieces(add: Callable[..., None], values_per_sample: int, dim: int, *parts: Tensor) -> None:
    """`add` with as many samples at a time as stay in the cache; they are dimension `dim` of every part."""
    n_samples = parts[-1].shape[dim]
    size = within_cache(n_samples * values_per_sample, VALUES_IN_CACHE, parts[-1]) // values_per_sample
    for some in zip(*(part.split(max(LEAST_SAMPLES, size), dim) for part in parts), strict=True):
        add(*some)


def other_keys(
    parts: AttentionParts, own: OwnPosition, positions: Positions
) -> tuple[Float[Tensor, "head d_head other sample"], Float[Tensor, "head d_value other sample"]]:
    """`k_s - k_t`, turned back by the query's position, and `u_ts` with the weight, for all `s` but the query's own."""
    is_other = positions.keys != positions.queries[:, None]
    others = positions.keys.expand(is_other.shape)[is_other].view(len(is_other), -1)
    k = parts.k[:, :, others] - parts.k[:, :, own.column, None]
    k = parts.query_map.waves.turn_back(k.transpose(2, 3)).transpose(2, 3)
    a = parts.a[:, :, own.row[:, None], others] * own.w[..., None]
    u = a[..., None] * (parts.v[:, :, others] - parts.z[..., None, :]) / parts.scale
    return samples_last(k), samples_last(u)


def samples_last(of_keys: Float[Tensor, "head batch query other n"]) -> Float[Tensor, "head n other sample"]:
    """Inputs and output positions together, behind all else."""
    return of_keys.flatten(1, 2).permute(0, 3, 2, 1).contiguous()
