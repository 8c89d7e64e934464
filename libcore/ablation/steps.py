"""An ablation as the evaluations it consists of: whoever carries it out sees each as it comes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")

KeptAndScore = tuple[int, float]
"""How many features, or edges, were kept, and the score with them."""


def carried_out(steps: Generator[Step, None, Result], on_step: Callable[[Step], None] = lambda step: None) -> Result:
    """What a generator returns at its end; `on_step` is called with each thing that it yields on the way."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        on_step(step)
