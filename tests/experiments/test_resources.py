"""Seconds and peak memory of a block."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from experiments.resources import measured

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
