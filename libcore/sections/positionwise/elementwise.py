"""Elementwise activation functions inside a section: their derivative averaged along the path from zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature

ActivationFunction = Callable[[Tensor], Tensor]
"""Differentiable, elementwise."""


def path_derivative(
    pre_activation: Float[Tensor, "*shape"], activation_function: ActivationFunction, quadrature: Quadrature
) -> Float[Tensor, "*shape"]:
    """`sum_q w_q φ'(α_q u)` at pre-activations `u`, which are linear in the activation (the bias included)."""
    average = torch.zeros_like(pre_activation)
    for alpha, weight in quadrature:
        average += weight * elementwise_derivative(activation_function, alpha * pre_activation)
    return average


def elementwise_derivative(
    function: ActivationFunction, pre_activation: Float[Tensor, "*batch pre"]
) -> Float[Tensor, "*batch pre"]:
    """`φ'(u)` by differentiation, for any differentiable elementwise function."""
    at = pre_activation.detach().requires_grad_()
    with torch.enable_grad():
        total = function(at).sum()
    return torch.autograd.grad(total, at)[0]
