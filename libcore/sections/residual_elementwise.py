"""Residual elementwise section `f @ R + φ(f @ A) @ B`: an MLP block beside the residual stream (METHOD.md eq. 9)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.chunking import ActivationStream, float64_zeros
from libcore.quadrature import Quadrature
from libcore.sections.base import MaskedEvaluation, Section
from libcore.sections.elementwise import path_derivative
from libcore.sections.masks import distinct_masks

VALUES_IN_CACHE = 2**19
"""Numbers that the second-level caches of two cores (1 MB each) hold in float32; measured best on such."""


class ResidualElementwiseSection(Section):
    """`f -> f @ residual + activation_function(f @ weight_in) @ weight_out` at every position.

    Args:
        residual: `[d_in, d_out]`, carries the residual stream, the output bias and the constant coordinate.
        weight_in: `[d_in, d_hidden]`, input bias in the last row.
        weight_out: `[d_hidden, d_out]`.
        activation_function: differentiable, elementwise.
    """

    def __init__(
        self,
        residual: Float[Tensor, "d_in d_out"],
        weight_in: Float[Tensor, "d_in d_hidden"],
        weight_out: Float[Tensor, "d_hidden d_out"],
        activation_function: Callable[[Tensor], Tensor],
    ) -> None:
        self.residual = residual
        self.weight_in = weight_in
        self.weight_out = weight_out
        self.activation_function = activation_function

    def __call__(self, activation: Float[Tensor, "batch position d_in"]) -> Float[Tensor, "batch position d_out"]:
        hidden = self.activation_function(activation @ self.weight_in)
        return activation @ self.residual + hidden @ self.weight_out

    def path_derivative(
        self, activation: Float[Tensor, "batch position d_in"], quadrature: Quadrature
    ) -> Float[Tensor, "batch position d_hidden"]:
        """`sum_q w_q φ'(α_q f @ A)`: the derivative averaged along the path from zero."""
        return path_derivative(activation @ self.weight_in, self.activation_function, quadrature)

    def _values_per_example(self, stream: ActivationStream) -> int:
        """Numbers alive per example in `path_derivative` and the section's own forward pass."""
        return stream.example().shape[1] * (sum(self.residual.shape) + 6 * self.weight_in.shape[1])

    def closed_form_jacobian_gram(
        self, stream: ActivationStream, to_basis_next: Tensor, quadrature: Quadrature
    ) -> Float[Tensor, "d_in d_in"]:
        """METHOD.md eq. 9: one forward pass and one Gram of `d = φ'(f @ A)`, whatever the number of output features."""
        d_hidden = self.weight_in.shape[1]
        derivative_sum = float64_zeros(d_hidden, like=self.weight_in)
        derivative_gram = float64_zeros(d_hidden, d_hidden, like=self.weight_in)
        count = 0
        for activation in stream.chunks(self._values_per_example(stream)):
            derivative = self.path_derivative(activation, quadrature).double().flatten(0, 1)
            derivative_sum += derivative.sum(0)
            derivative_gram += derivative.T @ derivative
            count += len(derivative)

        weight_in = self.weight_in.double()
        residual = (self.residual @ to_basis_next).double()
        weight_out = (self.weight_out @ to_basis_next).double()
        cross = (weight_in * (derivative_sum / count)) @ (weight_out @ residual.T)
        hidden = weight_in @ (weight_out @ weight_out.T * (derivative_gram / count)) @ weight_in.T
        return residual @ residual.T + cross + cross.T + hidden

    def closed_form_edges(
        self,
        stream: ActivationStream,
        to_basis: Tensor,
        from_basis: Tensor,
        to_basis_next: Tensor,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """`A_ij(x) = (L_ji + sum_k U_jk d_k(x) V_ki) fhat_j(x)`, one product per chunk of inputs."""
        linear = (from_basis @ self.residual @ to_basis_next).double()
        weight_in, weight_out = (from_basis @ self.weight_in).double(), (self.weight_out @ to_basis_next).double()
        n_in, n_out, d_hidden = len(linear), linear.shape[1], len(weight_out)
        square_sum, count = float64_zeros(n_in, n_out, like=linear), 0
        attribution_values = stream.example().shape[1] * n_in * (d_hidden + 2 * n_out)
        for activation in stream.chunks(attribution_values + self._values_per_example(stream)):
            features = activation @ to_basis
            derivative = self.path_derivative(features @ from_basis, quadrature).double().flatten(0, 1)
            features = features.double().flatten(0, 1)
            # Scaling the features into the factors keeps the attribution itself the only [input, in, out] array.
            scaled = features[:, :, None] * (derivative[:, None, :] * weight_in)
            attribution = scaled.flatten(0, 1) @ weight_out
            attribution = attribution.unflatten(0, (len(features), n_in)).addcmul_(
                features[:, :, None].expand(-1, -1, n_out), linear
            )
            square_sum += attribution.square_().sum(0)
            count += len(features)
        return square_sum.T / count

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        from_basis: Tensor,
        to_basis_next: Tensor,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """The linear part is one product; each distinct mask evaluates the hidden layer from its kept inputs alone.

        Masks are taken in chunks of similar size and gathered to a common width, so the cost follows the number of
        kept edges: a mask of three inputs costs three rows of `weight_in`, not all of them.
        """
        flat = features.flatten(0, 1)
        linear = from_basis @ self.residual @ to_basis_next
        weight_in = from_basis @ self.weight_in
        # The padding index of `distinct_masks` points at this row of zeros.
        padded_weight_in = torch.cat([weight_in, torch.zeros_like(weight_in[:1])])
        weight_out = self.weight_out @ to_basis_next
        rows, masks_per_chunk = self._block_of_hidden(flat, memory_budget)

        def evaluate(mask: Bool[Tensor, "feature_out feature_in"]) -> Tensor:
            output = flat @ (linear * mask.T)
            for kept, outputs_of_mask in distinct_masks(mask, masks_per_chunk):
                columns, kept_weight = kept.clamp(max=flat.shape[1] - 1), padded_weight_in[kept]
                for features_block, output_block in zip(flat.split(rows), output.split(rows), strict=True):
                    kept_features = features_block[:, columns].transpose(0, 1)
                    hidden = self.activation_function(torch.bmm(kept_features, kept_weight))
                    for hidden_of_mask, outputs in zip(hidden, outputs_of_mask, strict=True):
                        output_block[:, outputs] += hidden_of_mask @ weight_out[:, outputs]
            return output.unflatten(0, features.shape[:2])

        return evaluate

    def _block_of_hidden(self, flat: Tensor, memory_budget: int) -> tuple[int, int]:
        """Examples and masks whose hidden activations are held at once.

        On a CPU they stay in cache: written to memory and read back, they would cost more than the products.
        """
        width, d_hidden = flat.shape[1], self.weight_in.shape[1]
        budget = memory_budget // 8
        in_cache = budget if flat.is_cuda else min(budget, VALUES_IN_CACHE)
        rows = max(1, min(len(flat), in_cache // d_hidden, budget // (2 * (width + d_hidden))))
        values_per_mask = width * d_hidden + rows * (width + d_hidden)
        return rows, max(1, min(in_cache // (rows * d_hidden), budget // values_per_mask))
