"""Elementwise activation functions inside a section: their derivative averaged along the path from zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.quadrature import Quadrature


def path_derivative(
    pre_activation: Float[Tensor, "*shape"], activation_function: Callable[[Tensor], Tensor], quadrature: Quadrature
) -> Float[Tensor, "*shape"]:
    """`sum_q w_q φ'(α_q u)` at pre-activations `u`, which are linear in the activation (the bias included)."""
    pre_activation = pre_activation.detach()
    average = torch.zeros_like(pre_activation)
    for alpha, weight in quadrature:
        at_alpha = (alpha * pre_activation).requires_grad_()
        with torch.enable_grad():
            total = activation_function(at_alpha).sum()
        average += weight * torch.autograd.grad(total, at_alpha)[0]
    return average
