"""Something timed several times over: every run's seconds, and the peak of memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from experiments.pipeline.resources import give_back_freed_memory, measured, peak_memory, reset_peak_memory

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing(Generic[Result]):
    """What was timed.

    Attributes:
        result: of the last run.
        runs: wall-clock seconds of each.
        peak_memory: bytes at the highest of all runs, of the whole process (of the GPU where one is used).
        added_memory: by how much that is above what was there before.
    """

    result: Result
    runs: list[float]
    peak_memory: int
    added_memory: int

    @property
    def seconds(self) -> float:
        """The median run."""
        return statistics.median(self.runs)


def timed(compute: Callable[[], Result], n_runs: int, device: torch.device) -> Timing[Result]:
    """`compute` so many times over, waiting for the GPU to finish each."""
    give_back_freed_memory()
    reset_peak_memory(device)
    before, peak, runs, results = peak_memory(device), 0, [], []
    for _ in range(n_runs):
        results.clear()
        synchronise(device)
        with measured(device) as taken:
            results.append(compute())
            synchronise(device)
        runs.append(taken.seconds)
        peak = max(peak, taken.peak_memory)
    return Timing(results[0], runs, peak, max(0, peak - before))


def synchronise(device: torch.device) -> None:
    """Wait for what the GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
