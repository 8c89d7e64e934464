"""Branches that act on every position by itself: MLPs, and the parts that a normalisation can be taken into."""

from __future__ import annotations

from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature
from libcore.sections.branch import Positions
from libcore.sections.normalisation import Normalisation, check_width, padded, unit_like
from libcore.sections.positionwise.hidden import Hidden
from libcore.sections.positionwise.jacobian import Positionwise, PositionwiseJacobian, RankOne


class PositionwiseBranch(Positionwise):
    """`f -> hidden(n(f) @ weight_in) @ weight_out` at every position: an MLP, or a linear map after a normalisation.

    Args:
        weight_in: `[d_in, pre]`, bias in the last row.
        weight_out: `[hidden, d_out]`.
        hidden: from pre-activations to hidden activations.
        normalisation: `n`, None for none; its gain and bias are in `weight_in`, and `d_in` is its width and the
            constant coordinate.
    """

    def __init__(
        self,
        weight_in: Float[Tensor, "d_in pre"],
        weight_out: Float[Tensor, "hidden d_out"],
        hidden: Hidden,
        normalisation: Normalisation | None = None,
    ) -> None:
        check_width(normalisation, weight_in)
        self.weight_in = weight_in if normalisation is None else normalisation.fold(weight_in)
        self.weight_out = weight_out
        self.hidden = hidden
        self.normalisation = normalisation

    @property
    def reads(self) -> Tensor:
        return self.weight_in

    @property
    def writes(self) -> Tensor:
        return self.weight_out.repeat(self.hidden.pre_activations_per_hidden, 1)

    @property
    def reads_per_write(self) -> int:
        return self.hidden.pre_activations_per_hidden

    def followed_by(self, weight: Tensor) -> PositionwiseBranch:
        branch = copy(self)
        branch.weight_out = self.weight_out @ weight
        return branch

    @property
    def read_normalisation(self) -> Normalisation | None:
        return self.normalisation

    @property
    def read_weight(self) -> Tensor:
        return self.weight_in

    def between(self, read: Tensor, constant: Tensor, positions: Positions) -> Tensor:
        return self.hidden(read)

    @property
    def write_weight(self) -> Tensor:
        return self.weight_out

    def terms(self, n_points: int) -> int:
        if self.normalisation is None:
            return 0
        return 2 if self.weight_in[self.normalisation.width :].any() else 1

    def path_jacobian(self, activation: Tensor, quadrature: Quadrature) -> PositionwiseJacobian:
        if self.normalisation is None:
            pre = activation @ self.weight_in
            return PositionwiseJacobian(sum_of([w * self.hidden.derivative(alpha * pre) for alpha, w in quadrature]))
        width = self.normalisation.width
        bias = self.weight_in[width:]
        from_residual, from_constant = activation[..., :width] @ self.weight_in[:width], activation[..., width:] @ bias
        slopes, against_scale, of_bias = [], [], []
        for alpha, weight in quadrature:
            inverse_scale = self.normalisation.inverse_scale(alpha * activation)
            derivative = self.hidden.derivative(alpha * (from_residual * inverse_scale + from_constant))
            slopes.append(weight * inverse_scale * derivative)
            against_scale.append(weight * alpha**2 * inverse_scale**3 * from_residual * derivative)
            of_bias.append(weight * (1 - inverse_scale) * bias * derivative)
        terms = [RankOne(padded(self.normalisation.centre(activation), 1) / -width, sum_of(against_scale))]
        if bias.any():
            terms.append(RankOne(unit_like(activation, -1), sum_of(of_bias)))
        return PositionwiseJacobian(sum_of(slopes), tuple(terms))


class ScaleBranch(Positionwise):
    """`[x, 1] -> 1 / σ(x)`, written to coordinate `target` of the output: a normalisation's scale kept as a feature."""

    def __init__(self, normalisation: Normalisation, target: int, d_out: int) -> None:
        self.normalisation = normalisation
        self.write = torch.zeros(1, d_out, dtype=torch.float64)
        self.write[0, target] = 1.0

    @property
    def reads(self) -> Tensor:
        return self.write.new_zeros(self.normalisation.width + 1, 1)

    @property
    def writes(self) -> Tensor:
        return self.write

    def followed_by(self, weight: Tensor) -> ScaleBranch:
        branch = copy(self)
        branch.write = self.write @ weight
        return branch

    @property
    def read_weight(self) -> Tensor:
        width = self.normalisation.width
        return self.normalisation.fold(torch.eye(width + 1, width, dtype=self.write.dtype, device=self.write.device))

    def between(self, read: Tensor, constant: Tensor, positions: Positions) -> Tensor:
        return self.normalisation.inverse_scale_of(read)

    @property
    def write_weight(self) -> Tensor:
        return self.write

    def __call__(self, activation: Tensor, positions: Positions) -> Tensor:
        return self.normalisation.inverse_scale(positions.at_queries(activation)) * self.write

    def forward_operations(self, positions: Positions) -> int:
        return 0

    def terms(self, n_points: int) -> int:
        return 1

    def path_jacobian(self, activation: Tensor, quadrature: Quadrature) -> PositionwiseJacobian:
        left = padded(self.normalisation.centre(activation), 1) / -self.normalisation.width
        right = sum_of(
            [weight * alpha * self.normalisation.inverse_scale(alpha * activation) ** 3 for alpha, weight in quadrature]
        )
        return PositionwiseJacobian(torch.zeros_like(right), (RankOne(left, right),))


class RescaleBranch(Positionwise):
    """`[x, ..., 1 / σ, ...] -> (x_c * coordinate `scale`) @ weight_out`: the division by a scale kept as a feature.

    A product of two coordinates, so that it has no singularity on the path to zero.
    """

    def __init__(
        self, width: int, centred: bool, scale: int, weight_out: Float[Tensor, "width d_out"], d_in: int | None = None
    ) -> None:
        self.width = width
        self.scale = scale
        self.d_in = width + 2 if d_in is None else d_in
        self.weight_out = Normalisation(width, centred, 0.0).fold(weight_out)

    @property
    def reads(self) -> Tensor:
        return torch.eye(self.d_in, self.width, dtype=self.weight_out.dtype, device=self.weight_out.device)

    @property
    def writes(self) -> Tensor:
        return self.weight_out

    def followed_by(self, weight: Tensor) -> RescaleBranch:
        branch = copy(self)
        branch.weight_out = self.weight_out @ weight
        return branch

    @property
    def read_weight(self) -> Tensor:
        return torch.cat([self.reads, unit_like(self.reads.T, self.scale)[:1].T], dim=1)

    def between(self, read: Tensor, constant: Tensor, positions: Positions) -> Tensor:
        return read[..., :-1] * read[..., -1:]

    @property
    def write_weight(self) -> Tensor:
        return self.weight_out

    def __call__(self, activation: Tensor, positions: Positions) -> Tensor:
        read = positions.at_queries(activation)
        return (read[..., : self.width] * read[..., self.scale, None]) @ self.weight_out

    def forward_operations(self, positions: Positions) -> int:
        return 2 * len(positions.queries) * self.weight_out.numel()

    def terms(self, n_points: int) -> int:
        return 1

    def path_jacobian(self, activation: Tensor, quadrature: Quadrature) -> PositionwiseJacobian:
        mean_alpha = sum(alpha * weight for alpha, weight in quadrature)
        residual, scale = activation[..., : self.width], activation[..., self.scale, None]
        by_scale = RankOne(unit_like(activation, self.scale), mean_alpha * residual)
        return PositionwiseJacobian((mean_alpha * scale).expand_as(residual), (by_scale,))


def sum_of(terms: list[Tensor]) -> Tensor:
    """Of the terms of a path average."""
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
