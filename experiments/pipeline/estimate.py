"""What a run will take, told before it: of every stage for `analysis.estimate_only`, of a long one when it begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache

import torch

from experiments.pipeline.console import duration
from libcore import processes
from libcore.costs.cost import Cost

log = logging.getLogger(__name__)

SHARE_OF_RATE = 0.5
"""Of the speed of matrix products that stages reach, elementwise passes among them: measured between 0.42 and 0.66 on
one core, where a stage takes a fifth of a second or longer (docs/SCALING.md)."""
TOLD_FROM = 60.0
"""Seconds."""
LEAST_OPERATIONS = 10**11
"""That any machine takes so long for; of fewer the speed is not even measured."""
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

Rates = Mapping[str, float]


@cache
def rates_of(device: torch.device, n_threads: int) -> Rates:
    """Operations per second of matrix products by dtype, measured in a fraction of a second, with torch's threads."""
    from experiments.benchmarks.machine import matrix_rates

    return matrix_rates(device, (256, 1024), 0.05)


def seconds_of(cost: Cost, device: torch.device) -> float:
    """Expected of this machine, the processes of the run sharing the work."""
    return cost.seconds(rates_of(device, torch.get_num_threads())) / SHARE_OF_RATE / processes.count()


def announce(stage: str, cost_of: Callable[[], Cost], device: torch.device) -> None:
    """`edges: about 4e14 operations, some 9 min`, of a stage that is expected to take over a minute."""
    cost = cost_of()
    if cost.total < LEAST_OPERATIONS or (seconds := seconds_of(cost, device)) <= TOLD_FROM:
        return
    about = "at most" if cost.at_most else "about"
    log.info("%s: %s %.0e operations, some %s", stage, about, cost.total, duration(seconds))


def tell(costs: Mapping[str, Cost], device: torch.device) -> None:
    """A table of all stages, line by line."""
    log.info("%-14s %14s %9s %9s %9s", "stage", "operations", "memory", "disk", "time")
    for stage, cost in costs.items():
        count = f"{'at most ' if cost.at_most else ''}{cost.total:.1e}"
        time = duration(seconds_of(cost, device))
        log.info("%-14s %14s %9s %9s %9s", stage, count, size(cost.memory), size(cost.disk), time)
    rates = rates_of(device, torch.get_num_threads())
    log.info("times at half the speed of matrix products, %s; docs/SCALING.md says what is counted", in_words(rates))


def in_words(rates: Rates) -> str:
    """`47 GFLOP/s in float64, 103 GFLOP/s in float32`."""
    return ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {dtype}" for dtype, rate in rates.items())


def estimate_metrics(costs: Mapping[str, Cost], device: torch.device) -> dict[str, float | int]:
    """The same numbers for `metrics.json`."""
    return {
        f"estimate/{stage}/{name}": value
        for stage, cost in costs.items()
        for name, value in {
            "operations": cost.total,
            "memory": cost.memory,
            "disk": cost.disk,
            "seconds": seconds_of(cost, device),
        }.items()
    }


def size(n_bytes: float | int) -> str:
    """`1.2 GB`."""
    power = next((power for power in range(len(UNITS)) if n_bytes < 1000 ** (power + 1)), len(UNITS) - 1)
    return f"{n_bytes / 1000**power:.3g} {UNITS[power]}"
