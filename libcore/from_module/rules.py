"""What becomes of biases and constants in each of torch's operations, by the operation's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from libcore.from_module.calls import Call
from libcore.from_module.constants import averaged
from libcore.from_module.contractions import einsum, matmul, scaled_dot_product_attention
from libcore.from_module.operations import ELEMENTWISE, UNCHANGED
from libcore.from_module.rearranging import iteration, joined, padding, shaped
from libcore.from_module.spatial import convolution, pooling, resampling

EPSILON = 1e-3
"""A plain number of this size and below is there so that nothing is divided by zero; it is no bias."""
MASKING = 1e4
"""Numbers of this size and above are added to scores for a softmax to become zero; they are no biases."""

Rule = Callable[[Call], Any]


def elementwise(call: Call) -> Tensor:
    """Entries by themselves, or with plain numbers."""
    if any(True for _ in call.others()):
        call.refuse("takes a parameter or buffer, which scales in a way that is not known")
    return call.like_inputs(call.run())


def product(call: Call) -> Tensor:
    """Products of data, or with weights."""
    return call.like_inputs(call.run())


def addition(call: Call) -> Tensor:
    """Data and data; or data and a bias, which scales."""
    first, second = call.argument(0, "input"), call.argument(1, "other")
    if call.is_data(first) and call.is_data(second):
        return call.like_inputs(call.run())
    constant = second if call.is_data(first) else first
    if not isinstance(constant, Tensor):
        if abs(constant) > EPSILON:
            call.refuse(
                f"of the plain number {constant:g}, which may be a bias; expected a parameter or buffer, or an "
                "elementwise module without weights around the whole function"
            )
        return call.like_inputs(call.run())
    finite = torch.isfinite(constant) & (constant.abs() < MASKING)
    if not bool(finite.all()):
        if bool((finite & (constant != 0)).any()):
            call.refuse("of a tensor with both finite and infinite numbers; expected a mask of zeros, or biases")
        return call.like_inputs(call.run())
    settings = {key: value for key, value in call.kwargs.items() if key not in {"input", "other"}}
    data, zero = (first, torch.zeros_like(second)) if call.is_data(first) else (second, torch.zeros_like(first))
    # Linear in both: what is added alone is what is added to zero.
    pairs = ((data, zero), (torch.zeros_like(data), constant))
    alone, bias = (call.function(*(pair if data is first else pair[::-1]), **settings) for pair in pairs)
    return with_bias(call, alone, bias, list(call.tracking.constants(data)))


def choice(call: Call) -> Tensor:
    """`where` and `masked_fill`: between data, or between data and what a mask writes."""
    written = (
        [call.argument(2, "value")]
        if call.name == "masked_fill"
        else [call.argument(1, "input"), call.argument(2, "other")]
    )
    for value in written:
        if not call.is_data(value) and not masking(value):
            call.refuse("with a finite number, which scales in a way that is not known; expected zero or infinity")
    return call.like_inputs(call.run())


def masking(value: Any) -> bool:
    """What a mask may write: zero, or an infinite or as good as infinite number."""
    if isinstance(value, Tensor):
        return bool(((value == 0) | ~(value.abs() < MASKING)).all())
    return value == 0 or not abs(value) < MASKING


def reduction(call: Call) -> Any:
    """Over some dimensions; the constants are averaged."""
    if any(call.is_data(value) for value in call.args[1:]):
        return elementwise(call)
    value, result = call.args[0], call.run()
    index = 2 if call.name in {"norm", "vector_norm"} else 1
    given = call.argument(index, "dim", call.kwargs.get("axis"))
    given = tuple(range(value.ndim)) if given is None or isinstance(given, bool) else given
    over = {d % value.ndim for d in (given if isinstance(given, (tuple, list)) else (given,))}
    reduced = result if isinstance(result, Tensor) else result[0]
    constants = [averaged(c, over) for c in call.tracking.constants(value)]
    if reduced.ndim < value.ndim:
        constants = [c.squeeze(tuple(over)) for c in constants]
    call.tracked(reduced, constants)
    return result


def linear(call: Call) -> Tensor:
    """`x @ W^T`, and `b * c`."""
    x, weight, bias = call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias")
    if not call.is_data(x) or call.is_data(weight) or call.is_data(bias):
        call.refuse("with weights that depend on the activation")
    result = functional.linear(x, weight)
    return with_bias(call, result, bias, [averaged(c, (-1,)) for c in call.tracking.constants(x)])


def addmm(call: Call) -> Tensor:
    """`b + x @ W`."""
    bias, x, weight = call.args[:3]
    if call.kwargs or len(call.args) > 3 or not call.is_data(x) or call.is_data(weight) or call.is_data(bias):
        call.refuse("in another form than bias, activation, weight")
    return with_bias(call, x @ weight, bias, [averaged(c, (-1,)) for c in call.tracking.constants(x)])


def with_bias(call: Call, result: Tensor, bias: Tensor | None, constants: list[Tensor]) -> Tensor:
    """The result and `b * c`, the constants as broadcastable to the result."""
    result = call.tracked(result, constants)
    if bias is None:
        return result
    found = call.tracking.constants(result)
    return call.tracked(result + call.scaled(bias, found), found)


def layer_norm(call: Call) -> Tensor:
    """The division has no bias; the gain's is added to what it gives."""
    x, shape = call.argument(0, "input"), call.argument(1, "normalized_shape")
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    over = range(-len(shape), 0)
    result = functional.layer_norm(x, shape, weight, None, call.argument(4, "eps", 1e-5))
    return with_bias(call, result, bias, [averaged(c, over) for c in call.tracking.constants(x)])


def group_norm(call: Call) -> Tensor:
    """As `layer_norm`, every pixel with its own constant."""
    x, groups, weight, bias = (
        call.argument(0, "input"),
        call.argument(1, "num_groups"),
        call.argument(2, "weight"),
        call.argument(3, "bias"),
    )
    result = functional.group_norm(x, groups, weight, None, call.argument(4, "eps", 1e-5))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return with_bias(call, result, None if bias is None else bias.view(shape), list(call.tracking.constants(x)))


def batch_norm(call: Call) -> Tensor:
    """By running moments: `x * s + (b - mean * s) * c`."""
    x, mean, variance = call.argument(0, "input"), call.argument(1, "running_mean"), call.argument(2, "running_var")
    weight, bias = call.argument(3, "weight"), call.argument(4, "bias")
    if mean is None or call.argument(5, "training", False):
        call.refuse("by the batch's own moments, which make examples depend on each other; expected running moments")
    scale = (variance + call.argument(7, "eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return with_bias(call, x * scale.view(shape), shift.view(shape), list(call.tracking.constants(x)))


SHAPED = (
    "view reshape flatten unflatten permute transpose t T mT squeeze unsqueeze expand expand_as view_as reshape_as "
    "movedim moveaxis getitem chunk split unbind select narrow tensor_split flip roll index_select repeat "
    "repeat_interleave tile ravel adjoint"
)
SAME_SHAPE = "softmax log_softmax softmin cumsum normalize tril triu nan_to_num maximum minimum"
REDUCTIONS = "mean sum amax amin max min var std logsumexp norm vector_norm prod"
COMPARISONS = "gt lt ge le eq ne isnan isinf isfinite logical_not logical_and logical_or"

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE | UNCHANGED | set(COMPARISONS.split()), elementwise),
    **dict.fromkeys(SAME_SHAPE.split(), elementwise),
    **dict.fromkeys(("mul", "div", "rdiv", "neg", "prelu", "rms_norm"), product),
    **dict.fromkeys(("add", "sub", "rsub"), addition),
    **dict.fromkeys(SHAPED.split(), shaped),
    **dict.fromkeys(("cat", "stack"), joined),
    **dict.fromkeys(("where", "masked_fill"), choice),
    **dict.fromkeys(REDUCTIONS.split(), reduction),
    **dict.fromkeys(("matmul", "rmatmul"), matmul),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(
        [f"{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)],
        pooling,
    ),
    **dict.fromkeys(("interpolate", "upsample"), resampling),
    "pad": padding,
    "iter": iteration,
    "linear": linear,
    "addmm": addmm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "batch_norm": batch_norm,
    "einsum": einsum,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
