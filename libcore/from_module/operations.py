"""Torch's operations by name, the same whether called as function, method, operator or in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SYNONYMS = {
    "radd": "add",
    "iadd": "add",
    "isub": "sub",
    "subtract": "sub",
    "rmul": "mul",
    "imul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "rtruediv": "rdiv",
    "divide": "div",
    "rmatmul": "rmatmul",
    "mm": "matmul",
    "bmm": "matmul",
    "concat": "cat",
    "concatenate": "cat",
    "negative": "neg",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "get": "getattr",
}

_ELEMENTWISE = (
    "relu relu6 gelu silu mish tanh sigmoid softplus softsign elu celu selu leaky_relu rrelu hardtanh hardswish "
    "hardsigmoid hardshrink softshrink tanhshrink logsigmoid log_sigmoid threshold exp expm1 log log1p sin cos tan "
    "atan sinh cosh asinh erf erfc square sqrt rsqrt reciprocal abs pow rpow clamp clamp_min clamp_max clip sign"
)
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
"""Each number by itself; further arguments are plain numbers."""

_UNCHANGED = (
    "contiguous clone to float double type type_as dropout alpha_dropout feature_alpha_dropout dropout1d dropout2d "
    "dropout3d feature_dropout requires_grad positive"
)
UNCHANGED = frozenset(_UNCHANGED.split())
"""The same numbers in evaluation mode."""


def operation_name(function: Callable[..., Any]) -> str:
    """`add` for `torch.add`, `Tensor.add_`, `Tensor.__radd__`, `operator.add`; a property's own name for its getter."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        return getattr(getattr(function, "__self__", None), "__name__", name)
    name = name.strip("_")
    return SYNONYMS.get(name, name)


def out_of_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """The operation that leaves its input as it is; the function itself where it does so already."""
    name = getattr(function, "__name__", "")
    if name.startswith("__i") and name.endswith("__") and hasattr(Tensor, f"__{name[3:-2]}__"):
        return getattr(Tensor, f"__{name[3:-2]}__")
    if name.endswith("_") and not name.endswith("__") and hasattr(Tensor, name[:-1]):
        return getattr(Tensor, name[:-1])
    return function


def is_elementwise(module: nn.Module) -> bool:
    """Whether a module without weights treats every number by itself, all alike, and does something to them."""
    if any(True for _ in (*module.parameters(), *module.buffers())):
        return False
    generator = torch.Generator().manual_seed(0)
    numbers = 2 * torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    others = 2 * torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    replaced = torch.rand(3, 4, 5, generator=generator) < 0.5
    order = torch.randperm(60, generator=generator)
    try:
        with torch.no_grad():
            values = module(numbers.clone())
            if not isinstance(values, Tensor) or values.shape != numbers.shape or torch.equal(values, numbers):
                return False
            beside_others = module(torch.where(replaced, others, numbers))
            reordered = module(numbers.flatten()[order].view(3, 4, 5))
    except Exception:  # another shape or dtype than it takes: no elementwise function
        return False
    alone = torch.allclose(values[~replaced], beside_others[~replaced], rtol=1e-12, atol=1e-14)
    alike = torch.allclose(values.flatten()[order], reordered.flatten(), rtol=1e-12, atol=1e-14)
    return alone and alike
