"""The machine that is measured on: what it is, how busy it is, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch

from experiments.benchmarks.timing import synchronise
from experiments.pipeline.environment import environment

SIZES = (256, 512, 1024, 2048)
"""Of square matrices, between small ones that stay in cache and large ones that keep every unit busy."""
SECONDS_PER_SIZE = 0.15
DTYPES = {"float64": torch.float64, "float32": torch.float32}

Rates = dict[str, float]
"""Operations per second of matrix products, by dtype."""


def machine(device: torch.device) -> dict[str, Any]:
    """Processor or GPU, cores, threads, versions, commit, and the load now."""
    return environment(device) | {"load": load(), "measured": datetime.now(UTC).isoformat(timespec="seconds")}


def load() -> list[float] | None:
    """Processes that were running or waiting, averaged over 1, 5 and 15 minutes; None where the system does not say."""
    try:
        return [round(average, 2) for average in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def matrix_rates(device: torch.device, sizes: tuple[int, ...] = SIZES, seconds: float = SECONDS_PER_SIZE) -> Rates:
    """Operations per second of the fastest product among several sizes, with the threads that torch may use now."""
    return {name: max(rate_of(size, dtype, device, seconds) for size in sizes) for name, dtype in DTYPES.items()}


def rate_of(size: int, dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """Of the fastest one of the products of two square matrices that fit into so many seconds, three at least."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, dtype=dtype, generator=generator).to(device) for _ in range(2))
    out, fastest, began, n_done = torch.empty_like(left), float("inf"), time.perf_counter(), 0
    while n_done < 3 or time.perf_counter() - began < seconds:
        synchronise(device)
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronise(device)
        fastest = min(fastest, time.perf_counter() - start)
        n_done += 1
    return 2 * size**3 / fastest


@contextmanager
def threads(count: int) -> Generator[None, None, None]:
    """So many of torch's in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
