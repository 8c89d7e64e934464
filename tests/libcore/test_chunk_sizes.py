"""Chunks cover the data in order and keep to their budget."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import random

from libcore.streams import ActivationStream, float64_zeros, rows_per_chunk


@given(values=st.integers(0, 10**6), budget=st.integers(0, 10**9))
def test_rows_fill_the_budget_with_at_least_one(values: int, budget: int) -> None:
    rows = rows_per_chunk(values, budget)
    assert rows >= 1
    assert rows == 1 or rows * 8 * max(1, values) <= budget
    assert (rows + 1) * 8 * max(1, values) > budget


@given(n=st.integers(1, 30), values=st.integers(1, 100), budget=st.integers(1, 4000))
def test_chunks_are_the_data_in_order(n: int, values: int, budget: int) -> None:
    activation = torch.arange(n, dtype=torch.float64).reshape(n, 1, 1)

    def produce(start: int, stop: int) -> torch.Tensor:
        assert 0 <= start < stop <= n
        return activation[start:stop]

    stream = ActivationStream(produce, n, budget)
    chunks = list(stream.chunks(values))
    assert torch.equal(torch.cat(chunks), activation)
    assert all(len(chunk) <= rows_per_chunk(values, budget) for chunk in chunks)
    assert torch.equal(stream.example(), activation[:1])


def test_accumulators_are_float64_whatever_the_data(generator: torch.Generator) -> None:
    zeros = float64_zeros(2, 3, like=random(generator, 4).float())
    assert zeros.dtype == torch.float64
    assert torch.equal(zeros, torch.zeros(2, 3, dtype=torch.float64))
