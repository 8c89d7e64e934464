"""Signed sums of a block's attributions in closed form: what `signed.py` differentiates for, in a few products a chunk.

Both signed numbers of an edge are sums of derivatives times something of the source alone, `sum J_ti,sj weight_sj`: the
feature itself for the mean attribution, its square for the slope. Weighted sums pass through a branch's closed-form
Jacobian (METHOD.md eq. 9 and 10) before output features are made of them, whose number therefore costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.parallel import map_shares
from libcore.quadrature import Quadrature
from libcore.sections import BlockSection
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.branch import AttentionBranch
from libcore.sections.attention.jacobian import parts_at_point
from libcore.sections.attention.parts import AttentionParts
from libcore.sections.branch import Branch, Positions
from libcore.sections.positionwise.jacobian import Positionwise
from libcore.streams import ActivationStream, float64_zeros

BYTES_AT_ONCE = 16 * 2**20
"""Of a chunk on a CPU: larger ones are no faster, and were the largest that a run held after its ablation."""

Weights = Float[Tensor, "batch position weighted_feature"]
"""Features, then their squares: both sums are taken together."""


def has_signed_sums(section: object) -> bool:
    """Whether this file knows the closed form."""
    known = (Positionwise, AttentionBranch)
    return isinstance(section, BlockSection) and all(isinstance(branch, known) for branch in section.branches)


def signed_sums(
    section: BlockSection, stream: ActivationStream, basis: Basis, next_basis: Basis, quadrature: Quadrature
) -> tuple[Float[Tensor, "2 feature_in feature_out"], Float[Tensor, " feature_in"]]:
    """`sum_x sum_t sum_s J_ti,sj fhat_sj` and the same with `fhat_sj^2`; and `sum_x sum_s fhat_sj^2`.

    `J` is the derivative averaged along the path of METHOD.md eq. 7; float64.
    """
    basis, next_basis = basis.double(), next_basis.double()
    example = stream.example()
    positions = section.positions_of(example)
    residual = basis.from_basis @ section.residual.double() @ next_basis.to_basis
    n_in, n_out = residual.shape

    def sums_of(chunks: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        branches = [branch_sums(branch, basis, next_basis, quadrature) for branch in section.branches]
        total, squares = float64_zeros(2 * n_in, n_out, like=residual), float64_zeros(n_in, like=residual)
        at_queries = float64_zeros(2 * n_in, like=residual)
        for chunk in chunks:
            features = basis.features(chunk.double())
            weights, activation = torch.cat([features, features.square()], -1), basis.activation(features)
            squares += weights[..., n_in:].sum((0, 1))
            at_queries += positions.at_queries(weights).sum((0, 1))
            for branch in branches:
                branch.add(activation, weights, positions)
        for branch in branches:
            total += branch.total()
        return total + at_queries[:, None] * twice(residual), squares

    values = 2 * example.numel() + 4 * n_in * example.shape[1]
    values += sum(values_of(branch, positions, n_in) for branch in section.branches)
    shares = map_shares(stream, values, BYTES_AT_ONCE, sums_of)
    total, squares = (torch.stack(of_shares).sum(0) for of_shares in zip(*shares, strict=True))
    return total.unflatten(0, (2, n_in)), squares


class BranchSums(ABC):
    """One branch's part."""

    @abstractmethod
    def add(self, activation: Float[Tensor, "batch position d_in"], weights: Weights, positions: Positions) -> None:
        """Take a chunk in."""

    @abstractmethod
    def total(self) -> Float[Tensor, "weighted_feature feature_out"]:
        """Summed over all chunks."""


def branch_sums(branch: Branch, basis: Basis, next_basis: Basis, quadrature: Quadrature) -> BranchSums:
    """Empty sums."""
    branch = branch.to(dtype=torch.float64)
    if isinstance(branch, Positionwise):
        return PositionwiseSums(branch, basis, next_basis, quadrature)
    assert isinstance(branch, AttentionBranch)
    return AttentionSums(branch, basis, next_basis, quadrature)


def values_of(branch: Branch, positions: Positions, n_in: int) -> int:
    """Numbers alive per example while a chunk is taken in."""
    n_queries, n_keys = len(positions.queries), positions.count
    if isinstance(branch, Positionwise):
        return n_queries * (6 * branch.reads.shape[1] + 2 * branch.reads.shape[0] + 6 * n_in)
    assert isinstance(branch, AttentionBranch)
    n_heads, d_head, d_value = len(branch.W_Q), branch.W_Q.shape[-1], branch.W_V.shape[-1]
    of_parts = n_heads * ((n_keys + 2 * n_queries) * d_head * d_value + 4 * n_queries * n_keys)
    return of_parts + (2 * n_keys + n_queries) * d_head * d_value + 6 * n_keys * n_in


def twice(rows: Float[Tensor, "*head feature_in d"]) -> Float[Tensor, "*head weighted_feature d"]:
    """A row for each weight: of features and of their squares the same."""
    return torch.cat([rows, rows], dim=-2)


class PositionwiseSums(BranchSums):
    """`sum_n weight_nj (A diag(d_n) B + sum_k y_k^T r_k B)_ji`, symbols as in `positionwise/jacobian.py`."""

    def __init__(self, branch: Positionwise, basis: Basis, next_basis: Basis, quadrature: Quadrature) -> None:
        self.branch, self.basis, self.quadrature = branch, basis, quadrature
        self.reads, self.writes = basis.from_basis @ branch.reads, branch.writes @ next_basis.to_basis
        self.weighted_slope = float64_zeros(2 * len(self.reads), self.reads.shape[1], like=self.reads)
        self.weighted_right = torch.zeros_like(self.weighted_slope)
        self.to_basis = next_basis.to_basis
        self.in_features = float64_zeros(len(self.weighted_slope), self.to_basis.shape[1], like=self.reads)

    def add(self, activation: Tensor, weights: Tensor, positions: Positions) -> None:
        at = self.branch.path_jacobian(activation, self.quadrature).at(positions)
        weights = positions.at_queries(weights).flatten(0, 1)
        self.weighted_slope += weights.T @ at.slope
        for term in at.terms:
            left = (term.left @ self.basis.from_basis.T).repeat(1, 2)
            if term.in_output:
                self.in_features += (weights * left).T @ (term.right @ self.to_basis)
            else:
                self.weighted_right += (weights * left).T @ term.right

    def total(self) -> Tensor:
        return (self.weighted_slope * twice(self.reads) + self.weighted_right) @ self.writes + self.in_features


class AttentionSums(BranchSums):
    """`sum_t sum_s weight_sj` times eq. 10's terms, symbols as in `attention/jacobian.py`."""

    def __init__(self, attention: Attention, basis: Basis, next_basis: Basis, quadrature: Quadrature) -> None:
        self.attention, self.basis, self.quadrature = attention, basis, quadrature
        weights = (attention.W_Q, attention.W_K, attention.W_V)
        self.reads = tuple(twice(basis.from_basis @ weight) for weight in weights)
        self.writes = attention.W_O @ next_basis.to_basis
        n_heads, n_weights, d_value = self.reads[2].shape
        self.dz = float64_zeros(n_heads, n_weights, d_value, like=self.writes)

    def add(self, activation: Tensor, weights: Tensor, positions: Positions) -> None:
        for alpha, point_weight in self.quadrature:
            parts = parts_at_point(self.attention, activation, positions, alpha, point_weight)
            for h in range(len(self.dz)):
                self.dz[h] += self._of_head(h, parts, weights, positions)

    def total(self) -> Tensor:
        return torch.einsum("hjd,hdi->ji", self.dz, self.writes)

    def _of_head(self, h: int, parts: AttentionParts, weights: Tensor, positions: Positions) -> Tensor:
        """One head's `sum_x sum_t sum_s weight_sj dz_t / dfhat_sj` at one point of the path."""
        W_Q, W_K, W_V = (weight[h] for weight in self.reads)
        a, b, q, v, z, X = (part[h] for part in (parts.a, parts.b, parts.q, parts.v, parts.z, parts.X))
        row, column = positions.own()
        attended = a.sum(1)
        fhat = weights * parts.w[h, ..., None]
        dz = torch.einsum("bs,bsj->j", attended, fhat)[:, None] * W_V
        dz += through(W_K, fhat, self._key_effects(h, parts))
        dz += through(W_Q, fhat[:, column], X[:, row])
        for term in parts.all_terms:
            along = (term.y @ self.basis.from_basis.T).repeat(1, 1, 2) * weights * term.c[h, ..., None]
            pairs = b * (q @ term.k[h].transpose(-1, -2)) / self.attention.scale
            moved = pairs.sum(1)[..., None] * v - pairs.transpose(-1, -2) @ z + attended[..., None] * term.v[h]
            by_query = torch.einsum("bte,bted->btd", term.q[h], X)
            dz += summed(along, moved) + summed(along[:, column], by_query[:, row])
        return dz

    def _key_effects(self, h: int, parts: AttentionParts) -> Float[Tensor, "batch key d_head d_value"]:
        """`sum_t q_t^T u_ts`, each query pulled back through the key."""
        b, q, v, z = (part[h] for part in (parts.b, parts.q, parts.v, parts.z))
        by_key = b.transpose(-1, -2)
        of_z = (by_key @ (q[..., :, None] * z[..., None, :]).flatten(2)).unflatten(-1, (q.shape[-1], -1))
        effects = (by_key @ q)[..., :, None] * v[..., None, :] - of_z
        through_key = parts.key_map.heads(slice(h, h + 1)).of_rows()
        return through_key.pull_back(effects.mT[None])[0].mT / self.attention.scale


def summed(
    weights: Float[Tensor, "batch position weighted_feature"], values: Float[Tensor, "batch position width"]
) -> Float[Tensor, "weighted_feature width"]:
    """`sum_x sum_s weight_sj value_s`."""
    return weights.flatten(0, 1).T @ values.flatten(0, 1)


def through(
    read: Float[Tensor, "weighted_feature d_head"],
    weights: Float[Tensor, "batch position weighted_feature"],
    values: Float[Tensor, "batch position d_head d_value"],
) -> Float[Tensor, "weighted_feature d_value"]:
    """`sum_x sum_s weight_sj read_j value_s`."""
    by_feature = summed(weights, values.flatten(2)).unflatten(1, values.shape[2:])
    return torch.einsum("je,jed->jd", read, by_feature)
