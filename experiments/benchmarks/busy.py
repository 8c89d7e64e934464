"""Threads beside a busy process: whether all of them are ever slower than one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from experiments.benchmarks.cases import Case
from experiments.benchmarks.machine import threads
from experiments.benchmarks.of_model import Tell
from experiments.benchmarks.stages import STAGES, Stages
from experiments.benchmarks.timing import timed

SPIN = "while True: pass"
AS_FAST = 1.05
"""How much longer all threads may take than one before that is told from chance."""


@contextmanager
def busy_process() -> Generator[None, None, None]:
    """Another process that computes without end, as long as the block lasts."""
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def threads_beside_a_busy_process(case: Case, n_runs: int, tell: Tell) -> list[dict[str, Any]]:
    """Rows by stage: seconds with one thread and with all, beside a busy process. Nothing where torch may use one."""
    available, rows = torch.get_num_threads(), []
    if available < 2:
        return rows
    stages = Stages(case)
    with busy_process():
        for stage in STAGES:
            compute, seconds = stages.compute(stage), {}
            for count in (1, available):
                with threads(count):
                    seconds[count] = timed(compute, n_runs, case.device).seconds
            ratio = seconds[available] / seconds[1]
            rows.append(
                {
                    "model": case.name,
                    "stage": stage,
                    "threads": available,
                    "seconds_of_one": seconds[1],
                    "seconds_of_all": seconds[available],
                    "ratio": ratio,
                    "never_slower": ratio <= AS_FAST,
                }
            )
            tell(f"beside a busy process: {stage}: {seconds[1]:.3g} s, {seconds[available]:.3g} s with {available}")
    return rows
