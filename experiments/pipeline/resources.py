"""Seconds and peak memory of a stage, and how the process keeps its memory."""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass
class Resources:
    """What a stage took: wall seconds, and the process's peak memory in bytes (of the GPU, where one is used)."""

    seconds: float = 0.0
    peak_memory: int = 0


@contextmanager
def measured(device: torch.device) -> Generator[Resources, None, None]:
    """Measure the block; the numbers are there when it ends."""
    taken, start = Resources(), time.perf_counter()
    reset_peak_memory(device)
    try:
        yield taken
    finally:
        taken.seconds = time.perf_counter() - start
        taken.peak_memory = peak_memory(device)
        give_back_freed_memory()


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Have glibc keep blocks of up to 32 MB that are freed, 256 MB in all, instead of giving them back to the system.

    Chunk after chunk asks for the same blocks: faulting their pages in anew took a fifth of attention's closed forms.
    Does nothing with another C library.
    """
    if (mallopt := c_function("mallopt")) is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 256 * 2**20)


def give_back_freed_memory() -> None:
    """Between stages: what one has freed is not part of the next one's peak. Does nothing with another C library."""
    if (malloc_trim := c_function("malloc_trim")) is not None:
        malloc_trim(0)


def c_function(name: str) -> Any:
    """A function of glibc's; None where there is none."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak: exact on a GPU and on Linux; elsewhere the process's peak since it started goes on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    high_water_mark = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(high_water_mark.split()[1]) * 1024
