"""Convolutions, pooling and resampling of images and sequences: which pixel's constant an output pixel has."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from libcore.from_module.calls import Call
from libcore.from_module.constants import averaged, bias_offset, compact


def per_axis(value: Any, n: int) -> tuple[int, ...]:
    """One number for each axis."""
    return (value,) * n if isinstance(value, int) else tuple(value) * (n if len(value) == 1 else 1)


def convolution(call: Call) -> Tensor:
    """Without its bias, and the bias times the constant at the window's `bias_offset`."""
    x, weight, bias = call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias")
    if not call.is_data(x) or call.is_data(weight):
        call.refuse("with weights that depend on the activation")
    n = x.ndim - 2
    stride, dilation = (per_axis(call.argument(i, name, 1), n) for i, name in ((3, "stride"), (5, "dilation")))
    given = call.argument(4, "padding", 0)
    result = call.function(x, weight, None, stride, given, dilation, call.argument(6, "groups", 1))
    windows = weight.shape[2:]
    if isinstance(given, str):
        given = tuple(d * (w - 1) // 2 if given == "same" else 0 for d, w in zip(dilation, windows, strict=True))
    pad = per_axis(given, n)
    constants = [averaged(c, (1,)).expand(-1, -1, *x.shape[2:]) for c in call.tracking.constants(x)]
    for axis in range(n):
        size, size_out = x.shape[2 + axis], result.shape[2 + axis]
        offset = bias_offset(size, windows[axis], stride[axis], pad[axis], dilation[axis], size_out)
        if offset is None:
            call.refuse(f"whose every offset lies in the padding of {pad[axis]} at some output pixel")
        begin = offset * dilation[axis] - pad[axis]
        steps = slice(begin, begin + stride[axis] * (size_out - 1) + 1, stride[axis])
        constants = [c[(slice(None),) * (2 + axis) + (steps,)] for c in constants]
    result = call.tracked(result, constants)
    if bias is None:
        return result
    found = call.tracking.constants(result)
    return call.tracked(result + call.scaled(bias.view(-1, *(1,) * n), found), found)


def pooling(call: Call) -> Tensor:
    """Constants are pooled like channels; an average leaves the padding out, so that one of ones is one."""
    result = call.run()
    if not isinstance(result, Tensor):
        call.refuse("with indices")
    x = call.argument(0, "input")
    settings = dict(call.kwargs)
    args = call.args[1:]
    if call.name.startswith("avg"):
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        settings |= dict(zip(names, args, strict=False))
        args = ()
        settings |= {"count_include_pad": False}
        settings.pop("divisor_override", None)
        if call.name == "avg_pool1d":
            settings.pop("divisor_override", None)
    settings.pop("input", None)
    return call.tracked(result, [per_channel(call, c, args, settings) for c in call.tracking.constants(x)])


def per_channel(call: Call, constant: Tensor, args: tuple[Any, ...], settings: dict[str, Any]) -> Tensor:
    """The operation on the constant of one channel, or of all where they differ."""
    channels = constant.shape[1]
    one = compact(constant).expand(-1, -1, *constant.shape[2:])
    moved = call.function(
        one if one.shape[0] == constant.shape[0] else one.expand(constant.shape[0], -1, *one.shape[2:]),
        *args,
        **settings,
    )
    return moved.expand(-1, channels, *moved.shape[2:]) if moved.shape[1] == 1 else moved


def resampling(call: Call) -> Tensor:
    """Constants are resampled like channels."""
    x = call.argument(0, "input")
    settings = {key: value for key, value in call.kwargs.items() if key != "input"}
    return call.tracked(call.run(), [per_channel(call, c, call.args[1:], settings) for c in call.tracking.constants(x)])
