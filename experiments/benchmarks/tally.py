"""What a computation spends its time on: seconds by kind of operation, and operations in matrix products by dtype."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from experiments.benchmarks.machine import Rates, threads
from experiments.benchmarks.timing import synchronise

KINDS = {
    "matrix products": ("mm", "bmm", "addmm", "baddbmm", "dot", "mv", "addmv", "addr", "convolution", "scaled_dot"),
    "decompositions": ("linalg", "qr", "geqrf", "orgqr", "triangular", "cholesky"),
    "copies": (
        "copy", "clone", "cat", "stack", "index", "gather", "scatter", "take", "select_backward", "slice_backward",
        "repeat", "pad", "constant", "fill", "zero", "empty", "ones", "full", "eye", "arange", "to_copy", "contiguous",
        "embedding", "resize",
    ),
    "sums": ("sum", "mean", "max", "min", "amax", "amin", "argmax", "any", "all", "cumsum", "norm", "var", "count"),
    "sorting": ("sort", "argsort", "topk", "unique", "nonzero"),
}  # fmt: skip
"""By how the operation's name begins, underscores left out; what computes each number by itself is none of these."""
VIEWS = (
    "view", "unsafeview", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "split",
    "unbind", "asstrided", "alias", "detach", "diagonal", "unflatten", "reshape", "localscalardense", "item", "lift",
)  # fmt: skip
ELEMENTWISE, HANDLING = "elementwise", "Python"


@dataclass
class Tally:
    """Of one run on one thread.

    Attributes:
        seconds: of the whole.
        by_kind: seconds in operations; the rest is Python's.
        operations: multiplications and additions in matrix products, by dtype.
    """

    seconds: float = 0.0
    by_kind: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    operations: Counter[str] = field(default_factory=Counter)

    @property
    def shares(self) -> dict[str, float]:
        """Of the whole time by kind, the largest first."""
        rest = max(0.0, self.seconds - sum(self.by_kind.values()))
        kinds = self.by_kind | {HANDLING: rest + self.by_kind.get(HANDLING, 0.0)}
        return {kind: kinds[kind] / self.seconds for kind in sorted(kinds, key=kinds.__getitem__, reverse=True)}

    def rate_share(self, rates: Rates) -> float | None:
        """How near the matrix products come to this machine's rate on one thread; None where there are none."""
        taken = self.by_kind.get("matrix products")
        return seconds_at(self.operations, rates) / taken if taken and self.operations else None


def seconds_at(operations: Counter[str], rates: Rates) -> float:
    """What operations by dtype take at these rates."""
    return sum(count / rates[dtype] for dtype, count in operations.items())


def tallied(compute: Callable[[], object], device: torch.device) -> Tally:
    """`compute` on one thread: once as it is, for its seconds, and once with each of its operations timed.

    Seconds are the thread's own, so that what else the machine does is no part of them; a GPU's are waited for.
    """
    clock, tally = time.perf_counter if device.type == "cuda" else time.thread_time, Tally()
    with threads(1):
        start = clock()
        compute()
        synchronise(device)
        tally.seconds = clock() - start
        with TallyMode(tally, device, clock):
            compute()
    tally.seconds = max(tally.seconds, sum(tally.by_kind.values()))
    return tally


class TallyMode(TorchDispatchMode):
    """Sees every operation of its thread."""

    def __init__(self, tally: Tally, device: torch.device, clock: Callable[[], float]) -> None:
        super().__init__()
        self.tally, self.device, self.clock = tally, device, clock

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        synchronise(self.device)
        start = self.clock()
        out = func(*args, **kwargs)
        synchronise(self.device)
        self.tally.by_kind[kind_of(func.overloadpacket.__name__.replace("_", ""))] += self.clock() - start
        if func.overloadpacket in flop_registry:
            first = next(value for value in args if isinstance(value, Tensor))
            counted = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
            self.tally.operations[str(first.dtype).removeprefix("torch.")] += counted
        return out


def kind_of(name: str) -> str:
    """Kind of an operation by its name without underscores."""
    if name in VIEWS:
        return HANDLING
    for kind, beginnings in KINDS.items():
        if name.startswith(tuple(beginning.replace("_", "") for beginning in beginnings)):
            return kind
    return ELEMENTWISE
