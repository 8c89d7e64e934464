"""What an operation makes of closed forms, by the operation's name; NoClosedForm where it leads out of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from libcore.from_module.affine_maps import AffineMap, NoClosedForm, averaging
from libcore.from_module.constants import bias_offset
from libcore.from_module.forms import Form
from libcore.from_module.operations import UNCHANGED
from libcore.from_module.spatial import per_axis


def elementwise(args: tuple[Any, ...], kwargs: dict[str, Any], target: Any) -> Form:
    """A function of one value and plain numbers."""
    kwargs = {key: value for key, value in kwargs.items() if key not in {"inplace", "input"}}
    x, settings = args[0], args[1:]
    if not isinstance(x, Form) or any(not plain(value) for value in (*settings, *kwargs.values())):
        raise NoClosedForm("a function of more than one value")
    function: Callable[..., Tensor] = getattr(Tensor, target) if isinstance(target, str) else target
    if getattr(function, "__name__", "").endswith("_"):
        function = getattr(Tensor, function.__name__[:-1])

    def applied(value: Tensor) -> Tensor:
        return function(value, *settings, **kwargs)

    return x.elementwise(applied if settings or kwargs else function)


def plain(value: Any) -> bool:
    """A number or a word."""
    return value is None or isinstance(value, (int, float, str, bool))


def reshaped(x: Form, shape: tuple[int, ...], shape_out: tuple[int, ...]) -> Form:
    """To the same shape, or an image to all that it holds."""
    if shape == shape_out:
        return x
    if x.of_pixels and shape_out == (shape[0], prod(shape[1:])):
        return Form(x.linear, x.hidden, x.width, x.grid, flattened=True)
    raise NoClosedForm(f"from {shape} to {shape_out}")


def linear(x: Form, weight: Tensor, bias: Tensor | None = None) -> Form:
    """`x @ W^T + b`."""
    return x.matrix(x.like(weight).T, optional(x, bias))


def matmul(x: Form, weight: Tensor) -> Form:
    """`x @ W`."""
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise NoClosedForm("a product of two values")
    return x.matrix(x.like(weight), None)


def optional(x: Form, tensor: Tensor | None) -> Tensor | None:
    """In the maps' dtype."""
    return None if tensor is None else x.like(tensor)


def add(x: Any, other: Any) -> Form:
    """Two values, or a value and a bias."""
    return sum_of(x, other, 1.0)


def sum_of(x: Any, other: Any, sign: float) -> Form:
    """`x + sign * other`."""
    if isinstance(x, Form) and isinstance(other, Form):
        return x.plus(other if sign == 1.0 else other.scaled(sign))
    if isinstance(x, Form) and isinstance(other, Tensor):
        return x.each_coordinate(None, sign * by_coordinate(x, other))
    if isinstance(other, Form) and isinstance(x, Tensor):
        return (other if sign == 1.0 else other.scaled(sign)).each_coordinate(None, by_coordinate(other, x))
    raise NoClosedForm("a plain number")


def subtract(x: Any, other: Any) -> Form:
    """The first less the second."""
    return sum_of(x, other, -1.0)


def multiply(x: Any, other: Any) -> Form:
    """By a number, or by one number for each coordinate."""
    if not isinstance(x, Form):
        x, other = other, x
    if not isinstance(x, Form) or isinstance(other, Form):
        raise NoClosedForm("a product of two values")
    if isinstance(other, Tensor):
        return x.each_coordinate(by_coordinate(x, other), None)
    if not isinstance(other, (int, float)):
        raise NoClosedForm("a size of the batch")
    return x.scaled(float(other))


def divide(x: Any, other: Any) -> Form:
    """By a number, or by one number for each coordinate."""
    if not isinstance(x, Form) or not isinstance(other, (Tensor, int, float)):
        raise NoClosedForm("a quotient of two values")
    return multiply(x, 1 / other)


def by_coordinate(x: Form, tensor: Tensor) -> Tensor:
    """One number for each coordinate, from a tensor that is broadcast to the value."""
    shape = (x.width, 1, 1) if x.of_pixels else (x.width,)
    if tensor.numel() == 1:
        return x.like(tensor).reshape(1).expand(x.width)
    if tuple(tensor.shape)[-len(shape) :] != shape or tensor.numel() != x.width:
        raise NoClosedForm("numbers that differ by position")
    return x.like(tensor).flatten()


def batch_norm(
    x: Form,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Form:
    """By running moments."""
    if training or mean is None or variance is None or not (x.of_pixels or x.flattened or x.grid is None):
        raise NoClosedForm("moments of the batch")
    scale = (x.like(variance) + eps).rsqrt()
    scale = scale if weight is None else scale * x.like(weight)
    shift = -x.like(mean) * scale
    return x.each_coordinate(scale, shift if bias is None else shift + x.like(bias))


def layer_norm(
    x: Form, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Form:
    """Over the last dimension."""
    if tuple(shape) != (x.width,):
        raise NoClosedForm("a normalisation over more than one dimension")
    return x.normalised(True, eps, optional(x, weight), optional(x, bias))


def rms_norm(x: Form, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Form:
    """Over the last dimension; PyTorch's own epsilon is the dtype's."""
    if tuple(shape) != (x.width,) or eps is None:
        raise NoClosedForm("a normalisation over more than one dimension, or an epsilon that depends on the dtype")
    return x.normalised(False, eps, optional(x, weight), None)


def conv2d(
    x: Form,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Form:
    """The constant and the bias are read at the window's `bias_offset`."""
    if not x.of_pixels or x.grid is None:
        raise NoClosedForm("no image")
    (steps, *others), holes = set(per_axis(stride, 2)), per_axis(dilation, 2)
    window = tuple(hole * (n - 1) + 1 for hole, n in zip(holes, weight.shape[2:], strict=True))
    if padding == "same":
        if any(n % 2 == 0 for n in window):
            raise NoClosedForm("more padding on one side")
        padding = tuple((n - 1) // 2 for n in window)
    (zeros, *more) = set(per_axis(0 if padding == "valid" else padding, 2))
    if others or more:
        raise NoClosedForm("rows and columns treated differently")
    d_out, d_in = weight.shape[0], x.width
    kernel = x.like(torch.zeros(*window, d_in + 1, d_out + 1))
    per_group = (d_in // groups, d_out // groups)
    for group in range(groups):
        rows = slice(group * per_group[0], (group + 1) * per_group[0])
        columns = slice(group * per_group[1], (group + 1) * per_group[1])
        kernel[:: holes[0], :: holes[1], rows, columns] = x.like(weight[columns]).permute(2, 3, 1, 0)
    found = [
        bias_offset(size, n, steps, zeros, hole, (size + 2 * zeros - full) // steps + 1)
        for size, n, full, hole in zip(x.grid, weight.shape[2:], window, holes, strict=True)
    ]
    offsets = [offset for offset in found if offset is not None]
    if len(offsets) < 2:
        raise NoClosedForm("every offset in the padding at some pixel")
    at = tuple(offset * hole for offset, hole in zip(offsets, holes, strict=True))
    kernel[(*at, -1, -1)] = 1.0
    if bias is not None:
        kernel[(*at, -1, slice(0, -1))] = x.like(bias)
    return x.then(AffineMap(kernel, x.grid, steps, zeros))


def avg_pool2d(
    x: Form, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, *rest: Any
) -> Form:
    """Without padding, whose zeros would count."""
    window = per_axis(kernel_size, 2)
    (steps, *others) = set(per_axis(kernel_size if stride in (None, ()) else stride, 2))
    divisor = rest[1] if len(rest) > 1 else None
    if others or any(per_axis(padding, 2)) or ceil_mode or divisor is not None or not x.of_pixels or x.grid is None:
        raise NoClosedForm("rows and columns treated differently, or padding")
    return x.then(averaging(x.width, x.grid, (window[0], window[1]), steps, x.linear.kernel))


def adaptive_avg_pool2d(x: Form, output_size: Any) -> Form:
    """To one pixel."""
    if per_axis(output_size, 2) != (1, 1):
        raise NoClosedForm("to several pixels")
    return x.mean_over_pixels(flattened=False)


def mean(x: Form, dim: Any, keepdim: bool = False) -> Form:
    """Over the pixels."""
    if not isinstance(dim, (tuple, list)) or {d % 4 for d in dim} != {2, 3}:
        raise NoClosedForm("not over all pixels")
    return x.mean_over_pixels(flattened=not keepdim)


OF_TWO = frozenset({"add", "sub", "mul", "div"})
FORMS: dict[str, Callable[..., Form]] = {
    **dict.fromkeys(UNCHANGED - {"to", "type", "type_as", "float", "double"}, lambda x, *args, **kwargs: x),
    "linear": linear,
    "matmul": matmul,
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "div": divide,
    "neg": partial(multiply, other=-1.0),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "conv2d": conv2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "mean": mean,
}
