"""How many operations something takes in matrix products: two for each multiplication and addition.

Elementwise passes, sums and copies are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Operations:
    """Of a computation over examples.

    Attributes:
        each: for every example.
        once: beside those, whatever the number of examples; threads that share them take this each.
    """

    each: int = 0
    once: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.each + other.each, self.once + other.once)

    def of(self, n_examples: int, n_shares: int = 1) -> int:
        """In all."""
        return n_examples * self.each + n_shares * self.once


def counted(compute: Callable[[], object]) -> int:
    """What `compute` takes, this thread's work alone."""
    with Counter() as counter:
        compute()
    return counter.total


class Counter(TorchDispatchMode):
    """Adds up the products inside, those in place and attention on a CPU too, which PyTorch's own counter leaves out.

    Its first use imports a compiler, which takes a second: formulas do not need it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (operations := COUNTED.get(func.overloadpacket)) is not None:
            self.total += operations(result, *args)
        return result


def product(result: Any, left: Any, right: Any, *_: Any) -> int:
    """Of `left @ right`."""
    return 2 * left.numel() * right.shape[-1]


def added_product(result: Any, total: Any, left: Any, right: Any, *_: Any) -> int:
    """Of `total + left @ right`."""
    return product(result, left, right)


def convolved(result: Any, activation: Any, kernel: Any, *_: Any) -> int:
    """Of a convolution."""
    return 2 * result.numel() * prod(kernel.shape[1:])


def attended(result: Any, q: Any, k: Any, v: Any, *_: Any) -> int:
    """Of scores, and of the values that they weigh."""
    return 2 * prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


aten = torch.ops.aten
COUNTED: dict[Any, Callable[..., int]] = {
    **dict.fromkeys((aten.mm, aten.bmm), product),
    **dict.fromkeys((aten.addmm, aten.baddbmm, aten.addmm_, aten.baddbmm_), added_product),
    **dict.fromkeys((aten.convolution, aten._slow_conv2d_forward), convolved),
    aten._scaled_dot_product_flash_attention_for_cpu: attended,
    aten._scaled_dot_product_flash_attention: attended,
    aten._scaled_dot_product_efficient_attention: attended,
    aten._scaled_dot_product_cudnn_attention: attended,
}
