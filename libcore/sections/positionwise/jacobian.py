"""Closed forms of branches that act on every position by itself (METHOD.md eq. 9, and section 5 on normalisation).

The Jacobian at one position, rows for input coordinates, is

    J = A diag(d) B + sum_k y_k^T r_k B

with weights `A`, `B` and, for each input, the derivative `d` of hidden by pre-activations (divided by the
normalisation's scale where there is one) and a few rank-one terms: a normalisation adds `y = -x_c / width`, along
which the scale moves. The Gram of `J` then needs the Gram of `d`, one matrix-vector product per input and term, and
Grams of the vectors `y`; the number of output features does not enter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.branch import AddAttributions, Attributions, Branch, DenseJacobian, JacobianSums, Positions
from libcore.sections.operations import Operations
from libcore.sections.positionwise.operations import PositionwiseShape
from libcore.streams import float64_zeros


@dataclass(frozen=True)
class RankOne:
    """`left^T right B` at every position; `left^T right` where `right` is `in_output` coordinates already."""

    left: Float[Tensor, "*batch d_in"]
    right: Float[Tensor, "*batch pre_or_d_out"]
    in_output: bool = False

    def written(
        self, writes: Float[Tensor, "pre feature_out"], to_basis: Float[Tensor, "d_out feature_out"]
    ) -> Float[Tensor, "*batch feature_out"]:
        """`right` in the next layer's features, `writes` being `B` into them."""
        return self.right @ (to_basis if self.in_output else writes)


@dataclass(frozen=True)
class PositionwiseJacobian:
    """`d`, and the rank-one terms."""

    slope: Float[Tensor, "*batch pre"]
    terms: tuple[RankOne, ...] = ()

    def at(self, positions: Positions) -> PositionwiseJacobian:
        """At the output positions, examples and positions in one dimension."""

        def flat(values: Tensor) -> Tensor:
            return positions.at_queries(values).flatten(0, 1)

        terms = tuple(RankOne(flat(term.left), flat(term.right), term.in_output) for term in self.terms)
        return PositionwiseJacobian(flat(self.slope), terms)


class Positionwise(Branch):
    """A branch whose Jacobian at a position is `A diag(d) B` and a few rank-one terms."""

    position_wise = True

    @property
    @abstractmethod
    def reads(self) -> Float[Tensor, "d_in pre"]:
        """`A`."""

    @property
    @abstractmethod
    def writes(self) -> Float[Tensor, "pre d_out"]:
        """`B`."""

    @property
    def reads_per_write(self) -> int:
        """How many times over `B` has the same rows: column `j` of `A` and so many others share one of them."""
        return 1

    @abstractmethod
    def path_jacobian(
        self, activation: Float[Tensor, "batch position d_in"], quadrature: Quadrature
    ) -> PositionwiseJacobian:
        """Averaged over the quadrature's points along the path from zero, in the activation's dtype."""

    def forward_values(self, positions: int, queries: int) -> int:
        return queries * (2 * self.reads.shape[0] + 3 * self.reads.shape[1] + self.writes.shape[1])

    @abstractmethod
    def terms(self, n_points: int) -> int:
        """How many rank-one terms `path_jacobian` has."""

    def deriving_operations(self, positions: Positions, n_points: int) -> int:
        """Of `path_jacobian` on one example, beside what is read."""
        return 0

    def shape(self, positions: Positions, n_points: int) -> PositionwiseShape:
        """What its operations depend on."""
        (d_in, pre), d_out = self.reads.shape, self.write_weight.shape[1]
        counts = self.reads_per_write, self.terms(n_points), positions.count, len(positions.queries)
        return PositionwiseShape(d_in, pre, d_out, *counts, self.deriving_operations(positions, n_points))

    def gram_operations(self, positions: Positions, n_out: int, n_points: int) -> Operations:
        return self.shape(positions, n_points).gram(n_out)

    def dense_operations(self, positions: Positions, n_out: int, n_points: int) -> int:
        return self.shape(positions, n_points).dense(n_out)

    def gram_sums(self, positions: Positions, n_out: int, n_points: int) -> int:
        return self.shape(positions, n_points).accumulated(n_out)

    def attribution_operations(
        self, positions: Positions, n_in: int, n_out: int, n_points: int, queries_at_a_time: int
    ) -> Operations:
        return self.shape(positions, n_points).attributions(n_in, n_out)

    def attribution_weights(self, positions: Positions, n_in: int, n_out: int) -> int:
        return self.shape(positions, 1).attribution_weights(n_in, n_out)

    def jacobian_sums(self, next_basis: Basis, quadrature: Quadrature) -> JacobianSums:
        return PositionwiseJacobianSums(self.to(dtype=torch.float64), next_basis.double(), quadrature)

    def jacobian_values(self, positions: int, queries: int, n_out: int, n_points: int) -> int:
        return queries * (4 * self.reads.shape[0] + 10 * self.reads.shape[1] + 2 * n_out)

    def attributions(
        self, basis: Basis, next_basis: Basis, quadrature: Quadrature, positions: Positions
    ) -> Attributions:
        return positionwise_attributions(self.to(dtype=torch.float64), basis, next_basis, quadrature, positions)

    def attribution_values(self, positions: int, queries: int, n_in: int, n_points: int) -> int:
        return queries * (10 * self.reads.shape[1] + 4 * n_in)

    def attribution_values_per_query(self, positions: int, n_in: int) -> int:
        return n_in * self.reads.shape[1]


class PositionwiseJacobianSums(JacobianSums):
    """Sums that `sum J J^T` and `sum J` are made of."""

    def __init__(self, branch: Positionwise, next_basis: Basis, quadrature: Quadrature) -> None:
        self.branch = branch
        self.quadrature = quadrature
        self.to_basis = next_basis.to_basis
        self.reads, self.writes = branch.reads, branch.writes @ self.to_basis
        width = self.reads.shape[1]
        self.slope_sum = float64_zeros(width, like=self.reads)
        self.slope_gram = float64_zeros(width, width, like=self.reads)
        # Without rank-one terms these stay numbers: a wide layer's would be the largest matrices there are.
        self.has_terms = False
        self.slope_with_terms = self.terms_sum = self.terms_gram = float64_zeros(1, 1, like=self.reads)

    def add(self, activation: Tensor, positions: Positions) -> DenseJacobian:
        at = self.branch.path_jacobian(activation, self.quadrature).at(positions)
        self.slope_sum += at.slope.sum(0)
        self.slope_gram += at.slope.T @ at.slope
        rights = [term.written(self.writes, self.to_basis) for term in at.terms]
        self.has_terms = self.has_terms or bool(rights)
        for term, right in zip(at.terms, rights, strict=True):
            self.terms_sum = self.terms_sum + term.left.T @ right
            self.slope_with_terms = self.slope_with_terms + (at.slope * (right @ self.writes.T)).T @ term.left
            for other, other_right in zip(at.terms, rights, strict=True):
                overlap = (right * other_right).sum(1, keepdim=True)
                self.terms_gram = self.terms_gram + term.left.T @ (overlap * other.left)

        def dense() -> Float[Tensor, "sample d_in feature_out"]:
            jacobian = (self.reads * at.slope[:, None, :]) @ self.writes
            for term, right in zip(at.terms, rights, strict=True):
                jacobian += term.left[:, :, None] * right[:, None, :]
            return jacobian

        return dense

    def gram(self) -> Float[Tensor, "d_in d_in"]:
        """`sum J J^T`, the first part eq. 9's."""
        own = self.reads @ (self.slope_gram * (self.writes @ self.writes.T)) @ self.reads.T
        if not self.has_terms:
            return own
        cross = self.reads @ self.slope_with_terms
        return own + cross + cross.T + self.terms_gram

    def transfer(self) -> Float[Tensor, "d_in feature_out"]:
        transfer = (self.reads * self.slope_sum) @ self.writes
        return transfer + self.terms_sum if self.has_terms else transfer


def positionwise_attributions(
    branch: Positionwise, basis: Basis, next_basis: Basis, quadrature: Quadrature, positions: Positions
) -> Attributions:
    """`fhat_j (A diag(d) B + sum_k y_k^T r_k B)_ji`, rows in feature coordinates."""
    to_basis = next_basis.to_basis
    reads, writes = (basis.from_basis @ branch.reads).T.contiguous(), (branch.writes @ to_basis).T
    width = writes.shape[1] // branch.reads_per_write
    reads_of, writes_of = reads.split(width), writes[:, :width].contiguous()
    # The derivative scales the narrower side, unless that would take the product several times; where the sides are
    # about as wide, that of input features, since the product then has the long dimension that makes it fast.
    narrow = 2 * branch.reads_per_write * len(writes) <= reads.shape[1]

    def attributions(features: Tensor) -> AddAttributions:
        at = branch.path_jacobian(basis.activation(features), quadrature)
        fhat, slope = positions.at_queries(features), positions.at_queries(at.slope).permute(2, 0, 1).contiguous()
        lefts = [positions.at_queries(term.left) @ basis.from_basis.T * fhat for term in at.terms]
        rights = [positions.at_queries(term.written(writes.T, to_basis)).permute(2, 0, 1) for term in at.terms]

        def add(attribution: Tensor, rows: slice) -> None:
            if narrow:
                scaled = writes[:, None, None] * slope[:, :, rows].permute(1, 2, 0)
                attribution.addcmul_((scaled.flatten(0, -2) @ reads).view_as(attribution), fhat[:, rows])
            else:
                slopes = slope[:, :, rows, None].split(width)
                scaled = sum_of_products([reads[:, None, None] for reads in reads_of], slopes).mul_(fhat[:, rows])
                attribution.view(len(attribution), -1).addmm_(writes_of, scaled.flatten(1))
            for left, right in zip(lefts, rights, strict=True):
                attribution.addcmul_(right[:, :, rows, None], left[:, rows])

        return add

    return attributions


def sum_of_products(weights: Sequence[Tensor], factors: Sequence[Tensor]) -> Tensor:
    """In one array."""
    total = weights[0] * factors[0]
    for weight, factor in zip(weights[1:], factors[1:], strict=True):
        total.addcmul_(weight, factor)
    return total
