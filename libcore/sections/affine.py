"""Affine section `f @ A`: unembedding, linear readout."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore import processes
from libcore.basis import Basis
from libcore.jacobian_factor import JacobianFactor
from libcore.quadrature import Quadrature
from libcore.sections.base import MaskedEvaluation, Section, columns
from libcore.sections.operations import Operations
from libcore.streams import ActivationStream, float64_zeros


class AffineSection(Section):
    """`f -> f @ weight` at every position; the bias is the row of `weight` that the constant coordinate reads."""

    def __init__(self, weight: Float[Tensor, "d_in d_out"]) -> None:
        self.weight = weight

    def __call__(self, activation: Float[Tensor, "batch position d_in"]) -> Float[Tensor, "batch position d_out"]:
        return activation @ self.weight

    @property
    def linear(self) -> Float[Tensor, "d_in d_out"]:
        return self.weight

    def after_linear(self, projected: Float[Tensor, "batch position d_out"]) -> Float[Tensor, "batch position d_out"]:
        return projected

    @property
    def weights_written(self) -> int:
        return self.weight.numel()

    def followed_by(self, weight: Float[Tensor, "d_out d_further"]) -> AffineSection:
        return AffineSection(self.weight @ weight)

    def closed_form_jacobian_gram(
        self, stream: ActivationStream, next_basis: Basis, quadrature: Quadrature
    ) -> Float[Tensor, "d_in d_in"]:
        """`A P A^T` with `P = C C^T` (METHOD.md 5): the Jacobian is constant, so no data is needed."""
        jacobian = (self.weight @ next_basis.to_basis).double()
        return jacobian @ jacobian.T

    def jacobian_factor(
        self, stream: ActivationStream, next_basis: Basis, quadrature: Quadrature
    ) -> JacobianFactor | None:
        """`A C`."""
        jacobian = (self.weight @ next_basis.to_basis).double()
        if jacobian.shape[1] >= jacobian.shape[0]:
            return None
        return JacobianFactor(jacobian, torch.eye(jacobian.shape[1], dtype=jacobian.dtype, device=jacobian.device))

    def closed_form_edges(
        self,
        stream: ActivationStream,
        basis: Basis,
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """`E_ij = K_ji^2 * E[fhat_j^2]` with `K = Cpinv A C` constant along the path."""
        interaction = (basis.from_basis @ self.weight @ next_basis.to_basis).double()
        square_sum, example = float64_zeros(basis.n_features, like=basis.to_basis), stream.example()
        for _, activation in stream.own_chunks(2 * example.numel() + basis.n_features):
            square_sum += basis.features(activation).double().flatten(0, 1).square().sum(0)
        n_samples = stream.n_examples * example.shape[1]
        return interaction.T.square() * (processes.summed(square_sum) / n_samples)

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        basis: Basis,
        next_basis: Basis,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """One product a mask: masking an input is masking an entry of the interaction matrix."""
        interaction = basis.from_basis @ self.weight @ next_basis.to_basis

        def evaluate(mask: Tensor, outputs: Tensor | None = None) -> Tensor:
            return features @ (columns(interaction, outputs) * mask.T)

        return evaluate

    def forward_operations(self, example: Tensor) -> int:
        return 2 * example.shape[1] * self.weight.numel()

    def gram_operations(self, example: Tensor, n_out: int, n_points: int) -> Operations:
        d_in, d_out = self.weight.shape
        jacobian = 2 * d_in * d_out * n_out
        # Made anew for the Gram where there are no factors.
        return Operations(once=2 * jacobian + 2 * d_in * d_in * n_out if n_out >= d_in else jacobian)

    def gram_memory(self, example: Tensor, n_out: int, n_points: int) -> tuple[int, int]:
        d_in = len(self.weight)
        return 0, d_in * n_out + (d_in * d_in if n_out >= d_in else 0)

    def edge_operations(
        self, example: Tensor, n_in: int, n_out: int, n_points: int, n_examples: int, memory_budget: int
    ) -> Operations:
        d_in, d_out = self.weight.shape
        return Operations(2 * example.shape[1] * d_in * n_in, 2 * n_in * d_out * (d_in + n_out))

    def edge_memory(self, example: Tensor, n_in: int, n_out: int, n_points: int) -> tuple[int, int]:
        return 2 * example.numel() + n_in, len(self.weight) * n_out
