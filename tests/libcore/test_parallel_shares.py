"""Chunks shared out to threads: each is computed once, whatever the number of threads and the budget."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Lock, current_thread
from time import sleep

import pytest
import torch
from torch import Tensor

from libcore.parallel import SHARES_PER_THREAD, map_shares
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
    [(1, 9, 1, 1), (2, 9, 4, 1), (6, 9, 6, 2), (99, 2, 6, 2), (99, 99, 6, 11)],
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
    assert [share[0][0] for share in first] == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("three_threads")
def test_a_thread_that_is_held_up_leaves_shares_to_the_others() -> None:
    """As on a core that another process uses."""
    others_are_done, done = Event(), list[int]()

    def held_up(chunks: Iterator[Tensor]) -> bool:
        if 0.0 in torch.cat([chunk.flatten() for chunk in chunks]):
            return others_are_done.wait(timeout=30)
        done.append(1)
        if len(done) == 3 * SHARES_PER_THREAD - 1:
            others_are_done.set()
        return True

    assert all(map_shares(stream(2**20), VALUES, 8 * VALUES, held_up))


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("examples_in_budget", "most"), [(1, 1), (2, 2), (3, 3), (99, 3)])
def test_no_more_at_once_than_there_is_memory_for(examples_in_budget: int, most: int) -> None:
    at_once, seen, lock = [0], list[int](), Lock()

    def counts(chunks: Iterator[Tensor]) -> None:
        with lock:
            at_once[0] += 1
            seen.append(at_once[0])
        sleep(0.02)
        list(chunks)
        with lock:
            at_once[0] -= 1

    map_shares(stream(examples_in_budget * 8 * VALUES), VALUES, 8 * VALUES, counts)
    assert max(seen) == most


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
