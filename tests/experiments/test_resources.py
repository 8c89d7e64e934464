"""Seconds and peak memory of a block."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from experiments.pipeline.resources import measured

CPU = torch.device("cpu")
MEGABYTE = 2**20


def test_seconds_are_those_of_the_block():
    time.sleep(0.05)
    start = time.perf_counter()
    with measured(CPU) as resources:
        time.sleep(0.05)
    assert 0.05 <= resources.seconds <= time.perf_counter() - start


@pytest.mark.skipif(sys.platform != "linux", reason="the peak starts anew with every block on Linux only")
def test_the_peak_is_that_of_the_block_even_if_the_memory_is_free_again():
    with measured(CPU) as large:
        torch.ones(200 * MEGABYTE, dtype=torch.uint8)
    with measured(CPU) as small:
        torch.ones(MEGABYTE, dtype=torch.uint8)
    assert 150 * MEGABYTE < large.peak_memory - small.peak_memory < 250 * MEGABYTE


def test_a_block_that_fails_is_measured_and_its_error_goes_on():
    with pytest.raises(RuntimeError, match="no luck"), measured(CPU) as resources:
        raise RuntimeError("no luck")
    assert resources.peak_memory > 0
    assert resources.seconds > 0


FAULTS = """
import resource, sys, numpy
if sys.argv[1] == "keep":
    from experiments.pipeline.resources import keep_freed_memory
    keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        blocks = [numpy.ones(2**20) for _ in range(3)]
        del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_for_the_next_chunk():
    keep, give_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "give back")
    )
    assert keep < give_back / 10


REST = """
import ctypes, torch
from pathlib import Path
from experiments.pipeline.resources import keep_freed_memory, measured
def resident():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
keep_freed_memory()
before = resident()
with measured(torch.device("cpu")):
    blocks = [torch.ones(2**20) for _ in range(50)]
    held = resident() - before
    del blocks
print(held, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_a_stage_has_freed_is_given_back_at_its_end():
    done = subprocess.run([sys.executable, "-c", REST], capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert held > 150 * MEGABYTE
    assert left < 50 * MEGABYTE
