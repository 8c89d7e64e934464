"""Residual elementwise section `f @ R + φ(f @ A) @ B`: an MLP block beside the residual stream (METHOD.md eq. 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.jacobian_factor import JacobianFactor
from libcore.parallel import map_shares, threads_for
from libcore.quadrature import Quadrature
from libcore.sections.block import BlockSection
from libcore.sections.operations import Operations
from libcore.sections.positionwise.attributions import ElementwiseAttributions
from libcore.sections.positionwise.branch import PositionwiseBranch
from libcore.sections.positionwise.elementwise import path_derivative
from libcore.sections.positionwise.hidden import Elementwise
from libcore.sections.positionwise.jacobian import PositionwiseJacobianSums
from libcore.streams import ActivationStream

VALUES_IN_CACHE = 2**19
"""Numbers that the second-level caches of two cores (1 MB each) hold in float32; measured best on such."""

BYTES_IN_CACHE = 2**23
"""Activations and derivatives of one chunk."""


class ResidualElementwiseSection(BlockSection):
    """`f -> f @ residual + activation_function(f @ weight_in) @ weight_out` at every position.

    A block of one elementwise branch, whose Jacobian Gram it has. What is its own is there for speed: that Gram by its
    factors where the input is wide, edges without the neurons that are not active, and for ablation a linear map to
    begin with.

    Args:
        residual: `[d_in, d_out]`, carries the residual stream, the output bias and the constant coordinate.
        weight_in: `[d_in, d_hidden]`, input bias in the last row.
        weight_out: `[d_hidden, d_out]`.
        activation_function: differentiable, elementwise.
    """

    branches: tuple[PositionwiseBranch]

    def __init__(
        self,
        residual: Float[Tensor, "d_in d_out"],
        weight_in: Float[Tensor, "d_in d_hidden"],
        weight_out: Float[Tensor, "d_hidden d_out"],
        activation_function: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(residual, (PositionwiseBranch(weight_in, weight_out, Elementwise(activation_function)),))
        self.weight_in = weight_in
        self.activation_function = activation_function

    @property
    def weight_out(self) -> Float[Tensor, "d_hidden d_out"]:
        """The branch's, since another may take its place (`followed_by`)."""
        return self.branches[0].weight_out

    @property
    def linear(self) -> Float[Tensor, "d_in width"]:
        """Pre-activations of the hidden neurons, then the residual part of the output."""
        return torch.cat([self.weight_in, self.residual], dim=1)

    def after_linear(self, projected: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position d_out"]:
        pre_activation, residual = projected.split((self.weight_in.shape[1], self.residual.shape[1]), dim=-1)
        return residual + self.activation_function(pre_activation) @ self.weight_out

    def jacobian_factor(
        self, stream: ActivationStream, next_basis: Basis, quadrature: Quadrature
    ) -> JacobianFactor | None:
        """Eq. 9 with the weights into the hidden neurons, and what the residual stream carries, left outside."""
        carried, writes = self._carried(next_basis)
        if self.weight_in.shape[1] + carried.shape[1] >= len(carried):
            return None
        branch, example = self.branches[0], stream.example()
        positions = self.positions_of(example)

        def moments_of(chunks: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
            sums = PositionwiseJacobianSums(branch.to(dtype=torch.float64), next_basis.double(), quadrature)
            for activation in chunks:
                sums.add(activation.double(), positions)
            return sums.slope_sum, sums.slope_gram

        values = 2 * example.numel() + branch.jacobian_values(positions.count, positions.count, 0, 1)
        shares = map_shares(stream, values, BYTES_IN_CACHE, moments_of)
        slope_sum, slope_gram = (torch.stack(moments).sum(0) for moments in zip(*shares, strict=True))
        count = stream.n_examples * positions.count
        hidden_out = self.weight_out.double() @ next_basis.double().to_basis
        crossed = (slope_sum / count)[:, None] * (hidden_out @ writes.T)
        of_hidden = slope_gram / count * (hidden_out @ hidden_out.T)
        middle = torch.cat([torch.cat([of_hidden, crossed], 1), torch.cat([crossed.T, writes @ writes.T], 1)])
        return JacobianFactor(torch.cat([self.weight_in.double(), carried], 1), middle)

    def _carried(self, next_basis: Basis) -> tuple[Float[Tensor, "d_in carried"], Float[Tensor, "carried feature_out"]]:
        """Two factors of `R C`, float64: one column for the constant where nothing else is carried."""
        residual = self.residual.double() @ next_basis.double().to_basis
        if self.carries_constant_alone:
            constant = residual.new_zeros(len(residual), 1)
            constant[-1] = 1.0
            return constant, residual[-1:]
        return residual, torch.eye(residual.shape[1], dtype=residual.dtype, device=residual.device)

    def closed_form_edges(
        self,
        stream: ActivationStream,
        basis: Basis,
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """`A_ij(x) = (L_ji + sum_k U_jk d_k(x) V_ki) fhat_j(x)`, neurons without a derivative left out.

        Products are in the activations' dtype, sums over data in float64.
        """
        linear = basis.from_basis @ self.residual @ next_basis.to_basis
        weight_in, weight_out = basis.from_basis @ self.weight_in, self.weight_out @ next_basis.to_basis
        example, d_hidden = stream.example(), self.weight_in.shape[1]
        n_positions = example.shape[1]

        def square_sum_of(chunks: Iterator[Tensor]) -> Tensor:
            attributions = ElementwiseAttributions(linear, weight_in, weight_out, budget_of_share)
            for activation in chunks:
                features = basis.features(activation)
                pre_activation = basis.activation(features) @ self.weight_in
                derivative = path_derivative(pre_activation, self.activation_function, quadrature)
                attributions.add(features.flatten(0, 1), derivative.flatten(0, 1))
            return attributions.square_sum

        values = 2 * len(linear) + n_positions * (sum(self.residual.shape) + 6 * d_hidden)
        half = stream.within(stream.memory_budget // 2)
        budget_of_share = half.memory_budget // threads_for(example)
        shares = map_shares(half, values, BYTES_IN_CACHE, square_sum_of)
        return torch.stack(shares).sum(0).T / (stream.n_examples * n_positions)

    def gram_operations(self, example: Tensor, n_out: int, n_points: int) -> Operations:
        carried = self._carried_directions(n_out)
        if self.weight_in.shape[1] + carried >= len(self.residual):
            return super().gram_operations(example, n_out, n_points)
        shape = self.branches[0].shape(self.positions_of(example), n_points)
        return shape.moments(n_out, carried) + Operations(once=2 * self.residual.numel() * n_out)

    def gram_memory(self, example: Tensor, n_out: int, n_points: int) -> tuple[int, int]:
        rank = self.weight_in.shape[1] + self._carried_directions(n_out)
        if rank >= len(self.residual):
            return super().gram_memory(example, n_out, n_points)
        branch, positions = self.branches[0], self.positions_of(example)
        each = 2 * example.numel() + branch.jacobian_values(positions.count, positions.count, 0, n_points)
        return each, 3 * rank * rank + 2 * len(self.residual) * rank

    def _carried_directions(self, n_out: int) -> int:
        """Of `_carried`."""
        return 1 if self.carries_constant_alone else n_out

    def edge_operations(
        self, example: Tensor, n_in: int, n_out: int, n_points: int, n_examples: int, memory_budget: int
    ) -> Operations:
        """With a derivative at every neuron: the least is what those without one leave."""
        (d_in, d_out), d_hidden = self.residual.shape, self.weight_in.shape[1]
        each = 4 * d_in * n_in + 2 * d_in * d_hidden + 2 * d_hidden * n_in * n_out
        once = 2 * n_in * d_out * (d_in + n_out) + 2 * d_hidden * (n_in * d_in + d_out * n_out)
        return Operations(example.shape[1] * each, once)

    def edge_memory(self, example: Tensor, n_in: int, n_out: int, n_points: int) -> tuple[int, int]:
        of_chunk = 2 * n_in + example.shape[1] * (sum(self.residual.shape) + 6 * self.weight_in.shape[1])
        weights = self.weight_in.shape[1] * (n_in + n_out)
        return of_chunk + weights + 2 * n_in * n_out, 2 * weights + 2 * n_in * n_out
