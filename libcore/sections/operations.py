"""How many operations something takes in matrix products: two for each multiplication and addition.

Elementwise passes, sums and copies are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch


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
    """What torch's own counter says of `compute`, this thread's work alone, with what that leaves out on a CPU."""
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    left_out = {
        aten.addmm_: added_product,
        aten.baddbmm_: added_product,
        aten._scaled_dot_product_flash_attention_for_cpu: attended,
    }
    with FlopCounterMode(display=False, custom_mapping=left_out) as counter:
        compute()
    return counter.get_total_flops()


def added_product(total: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    """Of a product that is added in place."""
    return 2 * prod(left) * right[-1]


def attended(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Of scores, and of the values that they weigh."""
    return 2 * prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
