"""Elementwise activation functions of MLPs, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

ActivationFunction = Callable[[Tensor], Tensor]


def quick_gelu(pre_activation: Tensor) -> Tensor:
    """`u * sigmoid(1.702 u)`."""
    return pre_activation * (1.702 * pre_activation).sigmoid()


def gelu_tanh_rounded(pre_activation: Tensor) -> Tensor:
    """BLOOM's: `sqrt(2 / π)` to eight digits."""
    cubed = pre_activation * (1 + 0.044715 * pre_activation.square())
    return 0.5 * pre_activation * (1 + torch.tanh(0.79788456 * cubed))


def relu_squared(pre_activation: Tensor) -> Tensor:
    """`max(u, 0)²`."""
    return functional.relu(pre_activation).square()


ACTIVATION_FUNCTIONS: dict[str, ActivationFunction] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "gelu_tanh_rounded": gelu_tanh_rounded,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "quick_gelu": quick_gelu,
    "relu_squared": relu_squared,
}


def name_of_function(function: ActivationFunction) -> str | None:
    """The name of the elementwise function with these values, None for one that is not known.

    Compared by value, since every model names and writes its functions in its own way: the nearest of those that are as
    near as float32 can tell.
    """
    at = torch.linspace(-6.0, 6.0, 97, dtype=torch.float64)
    try:
        values = function(at)
    # Somebody else's callable may want other arguments or shapes.
    except (TypeError, ValueError, RuntimeError, IndexError):
        return None
    if not isinstance(values, Tensor) or values.shape != at.shape:
        return None
    distance = {name: float((values - known(at)).abs().max()) for name, known in ACTIVATION_FUNCTIONS.items()}
    nearest = min(distance, key=lambda name: distance[name])
    return nearest if distance[nearest] <= 1e-5 else None
