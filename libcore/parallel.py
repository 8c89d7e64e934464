"""Work shared out to threads: parts of the examples, every part computed by one thread.

An operation on what stays in cache is too short to be worth sharing among threads itself; and threads that meet after
every operation wait for each other, most of all beside another busy process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Event
from typing import TypeVar

import torch
from torch import Tensor

from libcore import processes
from libcore.streams import ActivationStream, rows_per_chunk, within_cache

Item = TypeVar("Item")
Result = TypeVar("Result")


class Interrupted(Exception):
    """Another thread has failed, or the whole was interrupted; nobody waits for this one's result."""


@cache
def pool_of(n_threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: new ones would set up the libraries' buffers anew, which takes longer than short work."""
    return ThreadPoolExecutor(n_threads, initializer=lambda: torch.set_num_threads(1))


# A process that is forked off has none of these threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool_of.cache_clear)


SHARES_PER_THREAD = 2
"""A thread whose core another process uses takes fewer shares than the others, in place of being waited for. More and
smaller shares cost more than they save: measured on two cores, 3 take 4 % longer than 2 on a quiet machine."""


def threads_for(example: Tensor) -> int:
    """Threads that share examples: as many as torch may use on a CPU, one on a GPU."""
    return 1 if example.is_cuda else torch.get_num_threads()


def shares_for(n_threads: int, n_examples: int) -> int:
    """Parts that examples are cut into for so many threads of each process, which take them as they get free."""
    of_process = n_threads * SHARES_PER_THREAD if n_threads > 1 else 1
    return min(of_process * processes.count(), n_examples)


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """What is shorter than the threads' meeting after it: beside another busy process they wait for each other."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)


def in_threads(
    work: Callable[[Item, Callable[[], None]], Result], items: Sequence[Item], on_gpu: bool, at_once: int | None = None
) -> list[Result]:
    """`work(item, check)` for every item, results in their order: as many at once as torch may use threads on a CPU.

    Never more than `at_once`, where there is memory for no more. Each runs on one thread. `check` is to be called
    between its steps; it ends the work where another has failed.
    """
    n_threads = 1 if on_gpu else min(torch.get_num_threads(), len(items))
    if at_once is not None:
        n_threads = min(n_threads, at_once)
    stop = Event()

    def check() -> None:
        if stop.is_set():
            raise Interrupted

    if n_threads <= 1:
        return [work(item, check) for item in items]
    pool = pool_of(n_threads)
    with one_thread():  # of the process, for libraries whose threads are not counted by the thread
        futures = [pool.submit(work, item, check) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            stop.set()  # after an error or an interruption, no thread goes on
            wait(futures)


def map_shares(
    stream: ActivationStream, values_per_example: int, most_bytes: int, work: Callable[[Iterator[Tensor]], Result]
) -> list[Result]:
    """`work` on each share of the chunks; results in the shares' order, also of those that other processes computed.

    As many shares at once as torch may use threads on a CPU and as examples fit into the stream's budget, one on a GPU.
    Chunks take at most `most_bytes` each, and those at once together at most the budget. The same number of threads
    and processes gives the same shares, hence the same numbers.
    """
    example = stream.example()
    examples_at_once = rows_per_chunk(values_per_example, stream.memory_budget)
    n_threads = min(threads_for(example), examples_at_once, stream.n_examples)
    budget = within_cache(stream.memory_budget // n_threads, most_bytes, example)
    n_shares = shares_for(n_threads, stream.n_examples)  # of all processes

    def share(number: int, check: Callable[[], None]) -> Result:
        chunks = stream.within(budget).chunks(values_per_example, first=number, every=n_shares)
        return work(checked(chunks, check))

    of_own = in_threads(share, processes.own(n_shares), example.is_cuda, n_threads)
    return processes.gathered(of_own, n_shares)


def checked(items: Iterator[Item], check: Callable[[], None]) -> Iterator[Item]:
    """The same items, with a check before each is used."""
    for item in items:
        check()
        yield item
