"""Operations that put entries in other places: their constants go along."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from libcore.from_module.calls import Call

AS_ANOTHER = frozenset({"expand_as", "view_as", "reshape_as"})
COPYING = frozenset({"flip", "roll", "index_select", "pad"})
"""Operations that copy what they read, also where it is expanded."""


def shaped(call: Call) -> Any:
    """Entries in other places: the constants go along."""
    if any(call.is_data(value) for value in (*call.args[1:], *call.kwargs.values())) and call.name not in AS_ANOTHER:
        call.refuse("at places that depend on the activation")
    value, result = call.argument(0, "input"), call.run()
    if not call.is_data(value):
        return result
    function = torch.Tensor.reshape if call.name == "view" else call.function
    moved = [function(c, *call.args[1:], **call.kwargs) for c in call.tracking.constants(value)]
    if isinstance(result, Tensor):
        return call.tracked(result, [restored(c, value, call) for c in moved])
    for index, part in enumerate(result):
        call.tracked(part, [restored(c[index], value, call) for c in moved])
    return result


def iteration(call: Call) -> Any:
    """Over the first dimension, as in `q, k, v = qkv`."""
    return iter(shaped(replace(call, function=torch.unbind, name="unbind")))


def restored(moved: Tensor, value: Tensor, call: Call) -> Tensor:
    """Expanded again where copying made an unvarying constant vary: in other dimensions than those that were copied."""
    if call.name not in COPYING:
        return moved
    unvarying = set.intersection(
        *({d for d in range(c.ndim) if not c.stride(d)} for c in call.tracking.constants(value))
    )
    return narrowed(moved, unvarying)


def narrowed(constant: Tensor, unvarying: set[int]) -> Tensor:
    """Expanded along these dimensions, along which it is the same."""
    shape = constant.shape
    for d in unvarying:
        constant = constant.narrow(d, 0, 1)
    return constant.expand(shape)


def padding(call: Call) -> Tensor:
    """With zeros, or copies of what is there."""
    mode, value = call.argument(2, "mode", "constant"), call.argument(3, "value")
    if mode == "constant" and value not in (None, 0, 0.0):
        call.refuse(f"with {value:g}, which scales in a way that is not known; expected zeros")
    return shaped(call)


def joined(call: Call) -> Tensor:
    """Data with data."""
    parts, dimension = call.argument(0, "tensors"), call.argument(1, "dim", 0)
    if not all(call.is_data(part) for part in parts):
        call.refuse("of the activation with a parameter or buffer, whose position's constant cannot be told")
    candidates = [call.tracking.constants(part) for part in parts]
    if any(len(constants) > 1 for constants in candidates):
        call.refuse("of numbers about pairs of positions")
    constants = [constants[0] for constants in candidates]
    together = call.function(constants, dimension)
    if call.name == "cat":
        unvarying = set.intersection(*({d for d in range(c.ndim) if not c.stride(d)} for c in constants))
        together = narrowed(together, unvarying)
    return call.tracked(call.run(), [together])
