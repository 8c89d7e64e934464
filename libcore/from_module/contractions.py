"""Products that sum over dimensions: matrix products, `einsum`, attention."""

from __future__ import annotations

from math import sqrt
from string import ascii_letters

import torch
from torch import Tensor

from libcore.from_module.calls import Call
from libcore.from_module.constants import contracted


def constants_of_product(call: Call, operands: list[tuple[Tensor, str]], labels_out: str, result: Tensor) -> Tensor:
    """The product with its constants: those that did not vary along what was summed, where there are any."""
    found = [
        contracted(constant, labels, labels_out, result.shape)
        for value, labels in operands
        if call.is_data(value)
        for constant in call.tracking.constants(value)
    ]
    whole = [constant for constant, lost in found if not lost]
    return call.tracked(result, whole or [constant for constant, _ in found])


def matmul(call: Call) -> Tensor:
    """`x @ W`, `W @ x` and `x @ y`."""
    left, right = call.args[:2] if call.name == "matmul" else (call.args[1], call.args[0])
    if left.ndim < 2 or right.ndim < 2:
        if right.ndim == 1 and left.ndim >= 2 and not call.is_data(right):
            labels = ascii_letters[: left.ndim]
            return constants_of_product(call, [(left, labels)], labels[:-1], left @ right)
        call.refuse("with a vector of the activation; expected matrices")
    result = left @ right
    batch = ascii_letters[: result.ndim - 2]
    pairs = [(left, "YZ"), (right, "ZX")]
    operands: list[tuple[Tensor, str]] = []
    for value, own in pairs:
        operands.append((value, batch[len(batch) - (value.ndim - 2) :] + own))
    # A batch dimension of size 1 that the other operand has in full is broadcast by `expand` in `contracted`.
    return constants_of_product(call, operands, batch + "YX", result)


def einsum(call: Call) -> Tensor:
    """Any product written out; `...` stands for the leading dimensions."""
    equation, operands = call.args[0], list(call.args[1:])
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    if not isinstance(equation, str) or "->" not in equation:
        call.refuse("without the output's labels; expected '->'")
    inputs, labels_out = equation.replace(" ", "").split("->")
    labels_in = inputs.split(",")
    free = [letter for letter in ascii_letters if letter not in equation]
    leading = max(
        (v.ndim - len(s.replace("...", "")) for v, s in zip(operands, labels_in, strict=True) if "..." in s), default=0
    )
    full = "".join(free[:leading])
    spelled: list[str] = []
    for value, labels in zip(operands, labels_in, strict=True):
        n = value.ndim - len(labels.replace("...", ""))
        spelled.append(labels.replace("...", full[leading - n :]))
    labels_out = labels_out.replace("...", full)
    if any(len(set(labels)) < len(labels) for labels in spelled):
        call.refuse("of a diagonal")
    result = torch.einsum(equation, *operands)
    return constants_of_product(call, list(zip(operands, spelled, strict=True)), labels_out, result)


def scaled_dot_product_attention(call: Call) -> Tensor:
    """Written out, because the derivative of the fused one cannot be batched; biases at the query's position."""
    query, key, value = (call.argument(i, name) for i, name in enumerate(("query", "key", "value")))
    mask, causal = call.argument(3, "attn_mask"), call.argument(5, "is_causal", False)
    scale = call.argument(6, "scale")
    if call.argument(7, "enable_gqa", False):
        groups = query.shape[-3] // key.shape[-3]
        return attend(call, query, key, value, mask, causal, scale, groups)
    return attend(call, query, key, value, mask, causal, scale, 1)


def attend(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
    groups: int,
) -> Tensor:
    """`softmax(q k^T scale + mask) v`."""
    keys, values = (heads.repeat_interleave(groups, -3) if groups > 1 else heads for heads in (key, value))
    scores = query @ keys.mT * (1 / sqrt(query.shape[-1]) if scale is None else scale)
    if causal:
        attends = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~attends, -torch.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        if bool((torch.isfinite(mask) & (mask != 0) & (mask.abs() < 1e4)).any()):
            call.refuse("with a bias on pairs of positions, so it cannot be told whose constant it is")
        scores = scores + mask
    result = scores.softmax(-1) @ values
    leading = "".join(ascii_letters[: result.ndim - 2])
    # Grouped queries: the heads' constants are the same, whichever key-value head they share.
    operands = [(query, leading + "YE"), (value, leading + "ZX")]
    if groups > 1 or not call.is_data(query):
        operands = operands[:1] if call.is_data(query) else operands[1:]
    return constants_of_product(call, operands, leading + "YX", result)
