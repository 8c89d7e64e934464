"""Attention whose output is normalised before it is added to the residual stream (METHOD.md 5).

With `m` the branch's output, `m_c` less its mean where it is centred, `τ = 1 / σ(m)` and `T` as in `jacobian.py`, the
Jacobian of `gain * m_c τ` is

    T'_ts (O - μ_t^T ρ_t) + δ_ts e β_t,    T' = τ_t T,    O = W_O C diag(gain) C',    μ_t = W_O m_c,t^T,

    ρ_t = τ_t² / width (m_c,t * gain) C':

attention's own with every query's rows scaled, less a rank-one matrix at every output position; `e` is the constant
coordinate, which the branch's bias reads.
"""

from __future__ import annotations

from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.attention.attention import KEYS_PER_BLOCK
from libcore.sections.attention.attributions import points_of, range_of
from libcore.sections.attention.branch import AttentionBranch
from libcore.sections.attention.output_sums import NormalisedAttentionSums, OutputAt
from libcore.sections.branch import AddAttributions, Attributions, Branch, JacobianSums, Positions
from libcore.sections.normalised_branch import NormalisedBranch
from libcore.sections.operations import Operations


class NormalisedAttention(NormalisedBranch, Branch):
    """`NormalisedBranch` of attention, with its closed form."""

    branch: AttentionBranch

    @property
    def writes(self) -> Tensor:
        return self.normalisation.centre(self.branch.W_O) @ self.to_output

    def followed_by(self, weight: Tensor) -> NormalisedAttention:
        branch = copy(self)
        branch.to_output = self.to_output @ weight
        return branch

    def unscaled(self) -> AttentionBranch:
        """The attention that writes `gain * m_c`."""
        branch = copy(self.branch)
        branch.W_O = self.writes
        return branch

    def output_at(
        self, activation: Float[Tensor, "batch position d_in"], positions: Positions, weight: float, to_basis: Tensor
    ) -> OutputAt:
        """At this activation, in the next layer's features."""
        width, added = self.normalisation.width, self.added(activation, positions)
        centred = self.normalisation.centre(added)
        tau = self.normalisation.inverse_scale_of(centred)
        written = centred @ self.to_output @ to_basis
        mu = torch.einsum("hdi,bti->hbtd", self.branch.W_O[..., :width], centred)
        of_bias = self.normalisation.centre(self.bias) @ self.to_output @ to_basis
        beta = tau * of_bias - tau**3 / width * (centred @ self.bias)[..., None] * written
        return OutputAt(tau.squeeze(-1), mu, tau**2 / width * written, weight * beta)

    def jacobian_sums(self, next_basis: Basis, quadrature: Quadrature) -> JacobianSums:
        branch, next_basis = self.to(dtype=torch.float64), next_basis.double()

        def output_at(activation: Tensor, positions: Positions, weight: float) -> OutputAt:
            return branch.output_at(activation, positions, weight, next_basis.to_basis)

        return NormalisedAttentionSums(branch.unscaled(), output_at, next_basis, quadrature)

    def jacobian_values(self, positions: int, queries: int, n_out: int, n_points: int) -> int:
        n_heads, d_in, d_head = self.branch.W_Q.shape
        in_block = min(positions, KEYS_PER_BLOCK)
        pairs = queries * in_block * (4 * d_in + 4 * n_points * n_heads * d_head)
        at_outputs = n_points * queries * (4 * self.normalisation.width + 4 * n_out + 3 * d_in)
        return self.branch.jacobian_values(positions, queries, n_out, n_points) + pairs + at_outputs

    def gram_operations(self, positions: Positions, n_out: int, n_points: int) -> Operations:
        own = self.branch.shape(positions).normalised_output(n_out, self.normalisation.width, n_points)
        return self.branch.gram_operations(positions, n_out, n_points) + Operations(own)

    def dense_operations(self, positions: Positions, n_out: int, n_points: int) -> int:
        return self.branch.dense_operations(positions, n_out, n_points)

    def gram_sums(self, positions: Positions, n_out: int, n_points: int) -> int:
        d_in = self.branch.W_Q.shape[1]
        return self.branch.gram_sums(positions, n_out, n_points) + d_in * (d_in + n_out)

    def attribution_operations(
        self, positions: Positions, n_in: int, n_out: int, n_points: int, queries_at_a_time: int
    ) -> Operations:
        n_heads, d_value, d_out = self.branch.W_O.shape
        own = self.branch.forward_operations(positions)
        own += 2 * len(positions.queries) * (n_heads * d_value * (n_in + d_out) + d_out * (d_out + n_out))
        inner = self.branch.attribution_operations(positions, n_in, n_out, n_points, queries_at_a_time)
        written = 2 * len(positions.queries) * n_out * n_heads * d_value * n_in
        return inner + Operations(n_points * own + (n_points - 1) * written)

    def attribution_weights(self, positions: Positions, n_in: int, n_out: int) -> int:
        return self.branch.attribution_weights(positions, n_in, n_out)

    def attributions(
        self, basis: Basis, next_basis: Basis, quadrature: Quadrature, positions: Positions
    ) -> Attributions:
        return normalised_attributions(self.to(dtype=torch.float64), basis, next_basis, quadrature, positions)

    def attribution_values(self, positions: int, queries: int, n_in: int, n_points: int) -> int:
        own = n_points * queries * (4 * self.normalisation.width + 3 * n_in)
        return self.branch.attribution_values(positions, queries, n_in, n_points) + own

    def attribution_values_per_query(self, positions: int, n_in: int) -> int:
        n_heads, d_value = len(self.branch.W_Q), self.branch.W_V.shape[-1]
        return self.branch.attribution_values_per_query(positions, n_in) + 2 * n_heads * d_value * n_in


def normalised_attributions(
    branch: NormalisedAttention, basis: Basis, next_basis: Basis, quadrature: Quadrature, positions: Positions
) -> Attributions:
    """What moves every head's `z`, scaled at every output position, and less what the scale's own move takes."""
    O = (branch.writes @ next_basis.to_basis).flatten(0, 1).T.contiguous()  # noqa: E741 - the page's symbol
    attends = branch.branch.attends(positions)
    point_at = points_of(branch.branch, basis, positions)

    def attributions(features: Tensor) -> AddAttributions:
        activation = basis.activation(features)
        outputs = [branch.output_at(alpha * activation, positions, w, next_basis.to_basis) for alpha, w in quadrature]
        points = [point_at(features, *point) for point in quadrature]
        of_constant = positions.at_queries(features) * basis.from_basis[:, -1]
        beta = torch.stack([output.beta for output in outputs]).sum(0)

        def add(attribution: Float[Tensor, "feature_out batch some feature_in"], rows: slice) -> None:
            keys = range_of(attends[rows].any(0))
            for point, output in zip(points, outputs, strict=True):
                dz = point.dz(rows, keys) * output.tau[:, rows, None]
                attribution.view(len(attribution), -1).addmm_(O, dz.reshape(O.shape[1], -1))
                along = torch.einsum("hdbtj,hbtd->btj", dz, output.mu[:, :, rows])
                attribution.addcmul_(output.rho[:, rows].permute(2, 0, 1)[..., None], along[None], value=-1)
            attribution.addcmul_(beta[:, rows].permute(2, 0, 1)[..., None], of_constant[None, :, rows])

        return add

    return attributions
