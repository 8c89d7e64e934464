"""A position-wise branch whose output is normalised before it is added to the residual stream (METHOD.md 5).

With `m` the branch's output, `m_c` less its mean where it is centred, and `J` its Jacobian as in `jacobian.py`, that of
`gain * m_c / σ(m)` is a scaled projection of it,

    J C diag(gain) / σ  -  (J m_c^T) (m_c * gain) / (width σ³),    C centring:

the same `A diag(d / σ) B'` and rank-one terms with `B' = B C diag(gain)`, and one more of rank one, along `J m_c^T`.
"""

from __future__ import annotations

from copy import copy

from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature
from libcore.sections.branch import Positions
from libcore.sections.normalisation import unit_like
from libcore.sections.normalised_branch import NormalisedBranch
from libcore.sections.positionwise.branch import PositionwiseBranch, sum_of
from libcore.sections.positionwise.jacobian import Positionwise, PositionwiseJacobian, RankOne


class NormalisedPositionwise(NormalisedBranch, Positionwise):
    """`NormalisedBranch` of a position-wise branch, with its closed form."""

    branch: PositionwiseBranch

    @property
    def reads(self) -> Tensor:
        return self.branch.reads

    @property
    def writes(self) -> Tensor:
        return self.normalisation.centre(self.branch.writes) @ self.to_output

    @property
    def reads_per_write(self) -> int:
        return self.branch.reads_per_write

    def followed_by(self, weight: Tensor) -> NormalisedPositionwise:
        branch = copy(self)
        branch.to_output = self.to_output @ weight
        return branch

    def path_jacobian(self, activation: Tensor, quadrature: Quadrature) -> PositionwiseJacobian:
        at_points = [self._at_point(alpha * activation, weight) for alpha, weight in quadrature]
        terms = tuple(term for at in at_points for term in at.terms)
        return PositionwiseJacobian(sum_of([at.slope for at in at_points]), terms)

    def _at_point(self, activation: Float[Tensor, "*batch d_in"], weight: float) -> PositionwiseJacobian:
        """At this activation, times the weight."""
        width, inner = self.normalisation.width, self.branch.path_jacobian(activation, AT_THE_END)
        every = Positions.of(activation.shape[1], None, activation.device)
        added = self.added(activation, every)
        centred = self.normalisation.centre(added)
        inverse_scale = self.normalisation.inverse_scale_of(centred)
        # J m_c^T
        writes = self.branch.writes[..., :width]
        along = (inner.slope * (centred @ writes.T)) @ self.reads.T
        for term in inner.terms:
            along = along + term.left * ((term.right @ writes) * centred).sum(-1, keepdim=True)
        constant = unit_like(activation, -1)
        along = along + constant * (centred @ self.bias)[..., None]
        scaled = weight * inverse_scale
        terms = [RankOne(term.left, scaled * term.right) for term in inner.terms]
        against = -weight / width * inverse_scale**3 * (centred @ self.to_output)
        terms.append(RankOne(along, against, in_output=True))
        if self.bias.any():
            of_bias = self.normalisation.centre(self.bias) @ self.to_output
            terms.append(RankOne(constant, scaled * of_bias, in_output=True))
        return PositionwiseJacobian(scaled * inner.slope, tuple(terms))

    def terms(self, n_points: int) -> int:
        return n_points * (self.branch.terms(1) + (2 if self.bias.any() else 1))

    def deriving_operations(self, positions: Positions, n_points: int) -> int:
        T, (d, pre), (width, d_out) = positions.count, self.reads.shape, self.to_output.shape
        every = Positions.of(T, None, positions.keys.device)
        along = 2 * T * pre * (width * (1 + self.branch.terms(1)) + d) + 2 * T * width * d_out
        point = self.branch.forward_operations(every) + along
        return n_points * point + (n_points - 1) * 2 * T * d * pre

    def jacobian_values(self, positions: int, queries: int, n_out: int, n_points: int) -> int:
        own = positions * (8 * self.normalisation.width + 4 * len(self.reads) + 2 * self.reads.shape[1])
        return super().jacobian_values(positions, queries, n_out, n_points) + n_points * own

    def attribution_values(self, positions: int, queries: int, n_in: int, n_points: int) -> int:
        own = positions * (8 * self.normalisation.width + 4 * len(self.reads) + 2 * self.reads.shape[1] + 4 * n_in)
        return super().attribution_values(positions, queries, n_in, n_points) + n_points * own


AT_THE_END = Quadrature.of("gradient", 1)
"""The Jacobian at the activation itself."""
