"""Chunks shared out to threads: each is computed once, whatever the number of threads and the budget."""

from __future__ import annotations

from collections.abc import Iterator
from threading import current_thread

import pytest
import torch
from torch import Tensor

from libcore.parallel import map_shares
from libcore.streams import ActivationStream

N, VALUES = 11, 4


def stream(memory_budget: int) -> ActivationStream:
    """Examples that hold their own number."""
    numbers = torch.arange(N, dtype=torch.float64).reshape(N, 1, 1)
    return ActivationStream(lambda start, stop: numbers[start:stop], N, memory_budget)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def numbers_of(chunks: Iterator[Tensor]) -> list[list[float]]:
    return [chunk.flatten().tolist() for chunk in chunks]


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(
    ("examples_in_budget", "most_examples", "shares", "longest"),
    [(1, 9, 1, 1), (2, 9, 2, 1), (6, 9, 3, 2), (99, 2, 3, 2), (99, 99, 3, 11)],
)
def test_every_example_is_in_one_share(examples_in_budget: int, most_examples: int, shares: int, longest: int) -> None:
    example_bytes = 8 * VALUES
    found = map_shares(stream(examples_in_budget * example_bytes), VALUES, most_examples * example_bytes, numbers_of)
    assert len(found) == shares
    chunks = [chunk for share in found for chunk in share]
    assert sorted(number for chunk in chunks for number in chunk) == list(range(N))
    assert max(map(len, chunks)) == longest


@pytest.mark.usefixtures("three_threads")
def test_shares_come_in_order_and_repeat_themselves() -> None:
    first, second = (map_shares(stream(3 * 8 * VALUES), VALUES, 8 * VALUES, numbers_of) for _ in range(2))
    assert first == second
    assert [share[0][0] for share in first] == [0, 1, 2]


@pytest.mark.usefixtures("three_threads")
def test_each_thread_computes_alone_and_the_others_have_their_threads_back() -> None:
    def threads(chunks: Iterator[Tensor]) -> tuple[str, int]:
        list(chunks)
        return current_thread().name, torch.get_num_threads()

    seen = map_shares(stream(2**20), VALUES, 8 * VALUES, threads)
    assert {n for _, n in seen} == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_an_error_ends_the_other_shares() -> None:
    def fails(chunks: Iterator[Tensor]) -> None:
        for chunk in chunks:
            if 1.0 in chunk:
                raise ArithmeticError("in chunk 1")

    with pytest.raises(ArithmeticError, match="in chunk 1"):
        map_shares(stream(2**20), VALUES, 8 * VALUES, fails)
    assert torch.get_num_threads() == 3
