"""Closed forms for attention (METHOD.md eq. 10): its Jacobian Gram and edges without a backward pass.

    d fhat_t / d f_s = δ_ts R C + sum_h T_{h,ts} W_O^h C,
    T_{h,ts} = a_{h,ts} W_V^h + W_K^h q_{h,t}^T u_{h,ts} + δ_ts W_Q^h X_{h,t}

with `u_{h,ts} = a_{h,ts} (v_{h,s} - z_{h,t}) / sqrt(d_head)` and `X_{h,t} = sum_s k_{h,s}^T u_{h,ts}`. Averaged along a
path, `a` and `X` are averages and the key term is one product `q^T u` per integration point. The Gram needs sums over
inputs of products of these small factors, in coordinates of what the heads write (`d_head` per head, or fewer); the
number of output features does not enter, and no array is as large as a Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.chunking import ActivationStream, float64_zeros
from libcore.quadrature import Quadrature

if TYPE_CHECKING:
    from libcore.sections.attention import AttentionSection


@dataclass(frozen=True)
class PathCoefficients:
    """What of the Jacobian depends on the input, float64.

    Attributes:
        pattern: `a`, averaged over the path.
        query: `q` at every integration point, times the point's weight.
        pull: `u` at every integration point.
        through_query: `X`, averaged over the path.
    """

    pattern: Float[Tensor, "batch query key head"]
    query: Float[Tensor, "batch query point head d_head"]
    pull: Float[Tensor, "batch query key point head d_value"]
    through_query: Float[Tensor, "batch query head d_head d_value"]


def path_coefficients(
    section: AttentionSection, activation: Float[Tensor, "batch position d_in"], quadrature: Quadrature
) -> PathCoefficients:
    """One forward pass per integration point."""
    patterns, queries, pulls, through_queries = [], [], [], []
    for alpha, weight in quadrature:
        query, key, value, at_point = section.attend(alpha * activation)
        centred = (value[:, :, None] - (at_point @ value)[:, :, :, None]) / section.scale
        pull = (at_point[..., None] * centred).double()
        patterns.append(weight * at_point.double().permute(0, 2, 3, 1))
        through_queries.append(weight * torch.einsum("bhse,bhtsd->bthed", key.double(), pull))
        queries.append(weight * query.double().transpose(1, 2))
        pulls.append(pull.permute(0, 2, 3, 1, 4))
    return PathCoefficients(
        torch.stack(patterns).sum(0),
        torch.stack(queries, 2),
        torch.stack(pulls, 3),
        torch.stack(through_queries).sum(0),
    )


def attention_jacobian_gram(
    section: AttentionSection,
    stream: ActivationStream,
    to_basis_next: Float[Tensor, "d_out feature_out"],
    quadrature: Quadrature,
) -> Float[Tensor, "d_in d_in"]:
    """`M'` of METHOD.md eq. 4, in float64."""
    residual, output = (section.residual @ to_basis_next).double(), (section.W_O @ to_basis_next).double()
    # The heads' outputs as features see them, in an orthonormal basis of what they span together: `Ω = reach reach^T`.
    reach = torch.linalg.qr(output.flatten(0, 1).T, mode="r").R.T.unflatten(0, output.shape[:2])
    n_positions = stream.example().shape[1]
    queries = section.queries_of(n_positions)
    diagonal = torch.zeros(len(queries), n_positions, dtype=torch.bool)
    diagonal[range(len(queries)), queries] = True

    sums, count = JacobianSums(section, reach), 0
    for activation in stream.chunks(gram_values(section, n_positions, reach.shape[-1], len(quadrature.points))):
        at = path_coefficients(section, activation, quadrature)
        pull = torch.einsum("btsqhd,hdr->btsqhr", at.pull, reach)
        query = at.query[:, :, None].expand(-1, -1, n_positions, -1, -1, -1)
        through_query = torch.einsum("bthed,hdr->bther", at.through_query, reach).flatten(0, 1)
        for pairs in (diagonal, ~diagonal):
            pattern, asked, pulled = (tensor[:, pairs].flatten(0, 1) for tensor in (at.pattern, query, pull))
            sums.add_pairs(pattern, asked, pulled)
            if pairs is diagonal:
                sums.add_queries(pattern, asked, pulled, through_query)
        sums.add_transfer(at, diagonal)
        count += len(activation)

    cross = torch.einsum("ji,hdi,hkd->jk", residual, output, sums.transfer())
    gram = sums.gram() + cross + cross.T + residual @ residual.T * (count * len(queries))
    return gram / (count * n_positions)


def gram_values(section: AttentionSection, n_positions: int, reach: int, n_points: int) -> int:
    """Numbers alive per example."""
    n_heads, _, d_head = section.W_Q.shape
    n_queries = len(section.queries_of(n_positions))
    per_pair = n_points * n_heads * (4 * reach + (n_heads + 1) * d_head)
    per_query = n_heads * d_head * (3 * reach + n_points * n_heads)
    return n_queries * (n_positions * per_pair + per_query)


class JacobianSums:
    """Sums over inputs and position pairs that `sum T Ω T^T` and `sum T` are made of, by the weights they belong to."""

    def __init__(self, section: AttentionSection, reach: Float[Tensor, "head d_value reach"]) -> None:
        self.w_q, self.w_k, self.w_v = (weight.double() for weight in (section.W_Q, section.W_K, section.W_V))
        self.reach = reach
        n_heads, d_value, r = reach.shape
        d_head = self.w_q.shape[-1]
        heads = (n_heads, d_head, n_heads, d_head)
        self.value_value = float64_zeros(n_heads, n_heads, like=reach)
        self.value_key = float64_zeros(n_heads, n_heads, d_head, r, like=reach)
        self.value_query = float64_zeros(n_heads, n_heads, d_head, r, like=reach)
        self.key_key, self.key_query, self.query_query = (float64_zeros(*heads, like=reach) for _ in range(3))
        self.pattern_sum = float64_zeros(n_heads, like=reach)
        self.key_sum, self.query_sum = (float64_zeros(n_heads, d_head, d_value, like=reach) for _ in range(2))

    def add_pairs(
        self,
        pattern: Float[Tensor, "pair head"],
        query: Float[Tensor, "pair point head d_head"],
        pull: Float[Tensor, "pair point head reach"],
    ) -> None:
        """Value and key terms of position pairs."""
        self.value_value += pattern.T @ pattern
        self.value_key += torch.einsum("nh,nqge,nqgr->hger", pattern, query, pull)
        overlap = torch.einsum("nqhr,npgr->nqhpg", pull, pull)
        met = torch.einsum("nqhpg,npgf->nqhgf", overlap, query)
        self.key_key += torch.einsum("nqhe,nqhgf->hegf", query, met)

    def add_queries(
        self,
        pattern: Float[Tensor, "pair head"],
        query: Float[Tensor, "pair point head d_head"],
        pull: Float[Tensor, "pair point head reach"],
        through_query: Float[Tensor, "pair head d_head reach"],
    ) -> None:
        """Query terms of the pairs `s = t`, and what they share with value and key terms there."""
        self.value_query += torch.einsum("nh,nger->hger", pattern, through_query)
        met = torch.einsum("nqhr,ngfr->nqhgf", pull, through_query)
        self.key_query += torch.einsum("nqhe,nqhgf->hegf", query, met)
        self.query_query += torch.einsum("nher,ngfr->hegf", through_query, through_query)

    def add_transfer(self, at: PathCoefficients, diagonal: Tensor) -> None:
        """`sum T` of the pairs `s = t`, which the residual stream meets."""
        self.pattern_sum += at.pattern[:, diagonal].sum((0, 1))
        self.key_sum += torch.einsum("btqhe,btqhd->hed", at.query, at.pull[:, diagonal])
        self.query_sum += at.through_query.sum((0, 1))

    def transfer(self) -> Float[Tensor, "head d_in d_value"]:
        """`sum T_h`."""
        return self.pattern_sum[:, None, None] * self.w_v + self.w_k @ self.key_sum + self.w_q @ self.query_sum

    def gram(self) -> Float[Tensor, "d_in d_in"]:
        """`sum T Ω T^T`."""
        values = self.w_v @ self.reach
        own = torch.einsum("hg,hir,gjr->ij", self.value_value, values, values)
        own += torch.einsum("hie,hegf,gjf->ij", self.w_k, self.key_key, self.w_k)
        own += torch.einsum("hie,hegf,gjf->ij", self.w_q, self.query_query, self.w_q)
        mixed = torch.einsum("hir,hger,gje->ij", values, self.value_key, self.w_k)
        mixed += torch.einsum("hir,hger,gje->ij", values, self.value_query, self.w_q)
        mixed += torch.einsum("hie,hegf,gjf->ij", self.w_k, self.key_query, self.w_q)
        return own + mixed + mixed.T


def attention_edges(
    section: AttentionSection,
    stream: ActivationStream,
    to_basis: Float[Tensor, "d_in feature_in"],
    from_basis: Float[Tensor, "feature_in d_in"],
    to_basis_next: Float[Tensor, "d_out feature_out"],
    quadrature: Quadrature,
) -> Float[Tensor, "feature_out feature_in"]:
    """`E` of METHOD.md eq. 8: `A_tij = (sum_s fhat_sj T_{h,ts}[j]) W_O^h C` plus the residual's term, in float64."""
    residual = (from_basis @ section.residual @ to_basis_next).double()
    output = (section.W_O @ to_basis_next).double().flatten(0, 1)
    w_q, w_k, w_v = ((from_basis @ weight).double() for weight in (section.W_Q, section.W_K, section.W_V))
    n_in, n_out = residual.shape
    n_positions = stream.example().shape[1]
    queries = section.queries_of(n_positions)
    square_sum, count = float64_zeros(n_in, n_out, like=residual), 0
    for activation in stream.chunks(len(queries) * n_in * (4 * len(output) + 2 * n_out)):
        features = activation @ to_basis
        at = path_coefficients(section, features @ from_basis, quadrature)
        features = features.double()
        at_query = features[:, queries]
        # What each input feature moves of every head's value, summed over the positions it is read at.
        asked = torch.einsum("hje,btqhe->btqhj", w_k, at.query)
        pulled = torch.einsum("bsj,btsqhd->btqhjd", features, at.pull)
        moved = (asked[..., None] * pulled).sum(2)
        moved += torch.einsum("bsj,btsh->bthj", features, at.pattern)[..., None] * w_v
        moved += at_query[:, :, None, :, None] * torch.einsum("hje,bthed->bthjd", w_q, at.through_query)
        attribution = moved.transpose(2, 3).flatten(3) @ output
        attribution.addcmul_(at_query[..., None], residual)
        square_sum += attribution.square_().sum((0, 1))
        count += len(activation)
    return square_sum.T / (count * n_positions)
