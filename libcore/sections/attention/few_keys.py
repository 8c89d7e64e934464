"""Query rows of an attention branch's Jacobian where keys are few (symbols as in `jacobian.py`).

`X_t = sum_s k_s^T u_ts` has no larger rank than there are keys, less one: `sum_s u_ts = 0`, so that

    X_t = sum_{s≠t} (k_s - k_t)^T u_ts,
    X_g,t Ω_gh X_h,t^T = sum_{s,r≠t} (k_s - k_t)_g^T (u_g,ts Ω_gh u_h,tr^T) (k_r - k_t)_h.

What stands in the middle is one number per pair of heads and of other keys, in place of a product of `d_head`-wide
matrices. Samples (inputs and output positions) come last, so that all else is a sum over long rows.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from libcore.sections.attention.jacobian import AttentionParts, OwnPosition
from libcore.sections.attention.rotary import Waves
from libcore.sections.branch import Positions


def few_keys(n_keys: int, d_head: int) -> bool:
    """Whether the numbers in the middle are fewer than those of `X`."""
    return (n_keys - 1) ** 2 <= d_head


def other_keys(
    parts: AttentionParts, own: OwnPosition, positions: Positions, waves: Waves, scale: float
) -> tuple[Float[Tensor, "head d_head other sample"], Float[Tensor, "head d_value other sample"]]:
    """`k_s - k_t`, turned back by the query's position, and `u_ts` with the weight, for all `s` but the query's own."""
    n_queries, n_keys = len(own.row), positions.count
    is_other = positions.keys != positions.queries[:, None]
    others = positions.keys.expand(n_queries, -1)[is_other].view(n_queries, n_keys - 1)
    k = parts.k[:, :, others] - parts.k[:, :, own.column, None]
    k = waves.turn_back(k.transpose(2, 3)).transpose(2, 3)
    a = parts.a[:, :, own.row[:, None], others] * parts.w[:, :, own.column, None]
    u = a[..., None] * (parts.v[:, :, others] - parts.z[..., None, :]) / scale
    return samples_last(k), samples_last(u)


def samples_last(of_keys: Float[Tensor, "head batch query other n"]) -> Float[Tensor, "head n other sample"]:
    """Inputs and output positions together, behind all else."""
    return of_keys.flatten(1, 2).permute(0, 3, 2, 1).contiguous()


def add_query_rows(
    query_query: Float[Tensor, "head head d_head d_head"],
    key_query: Float[Tensor, "head head d_head d_head"],
    k: Float[Tensor, "head d_head other sample"],
    u: Float[Tensor, "head d_value other sample"],
    q: Float[Tensor, "head sample d_head"],
    Omega: Float[Tensor, "head head d_value d_value"],
) -> None:
    """Add `sum X_g Ω_gh X_h^T`, of heads `h >= g` only, and `sum q_g^T u_g,tt Ω_gh X_h^T`."""
    for g in range(len(k)):
        u_Omega = (Omega[g, g:].mT.flatten(0, 1) @ u[g].flatten(1)).view_as(u[g:])
        middle = (u_Omega.unsqueeze(3) * u[g:].unsqueeze(2)).sum(1)  # [h, other of g, other of h, sample]
        through = (middle[:, None] * k[g:].unsqueeze(2)).sum(3)
        query_query[g, g:] += k[g].flatten(1) @ through.flatten(2).mT
        # A query's own `u` is what all others sum to, with the other sign.
        key_query[g, g:] -= (through.sum(2) @ q[g]).mT
        of_g = (middle[1:].sum(2)[:, None] * k[g]).sum(2)
        key_query[g + 1 :, g] -= (of_g @ q[g + 1 :]).mT
