"""Chunks of a stream shared out to threads: one chunk a thread, each computed by one thread.

An operation on a chunk that stays in cache is too short to be worth sharing among threads itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

import torch
from torch import Tensor

from libcore.streams import ActivationStream, rows_per_chunk

Result = TypeVar("Result")


def map_shares(
    stream: ActivationStream, values_per_example: int, most_bytes: int, work: Callable[[Iterator[Tensor]], Result]
) -> list[Result]:
    """`work` on each thread's share of the chunks; results in the shares' order.

    As many shares as torch may use threads on a CPU and as examples fit into the stream's budget at once, one on a GPU.
    Chunks take at most `most_bytes` each, and together at most the budget. The same number of threads gives the same
    shares, hence the same numbers.
    """
    on_gpu = stream.example().is_cuda
    examples_at_once = rows_per_chunk(values_per_example, stream.memory_budget)
    n_threads = 1 if on_gpu else min(torch.get_num_threads(), examples_at_once, stream.n_examples)
    budget = stream.memory_budget if on_gpu else min(stream.memory_budget // n_threads, most_bytes)
    stop = Event()

    def share(number: int) -> Result:
        chunks = stream.within(budget).chunks(values_per_example, first=number, every=n_threads)
        return work(until(stop, chunks))

    if n_threads == 1:
        return [share(0)]
    with ThreadPoolExecutor(n_threads, initializer=lambda: torch.set_num_threads(1)) as pool:
        try:
            return list(pool.map(share, range(n_threads)))
        finally:
            stop.set()  # after an error or an interruption, no thread begins another chunk
            torch.set_num_threads(n_threads)


def until(stop: Event, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
    """The chunks that come before `stop` is set."""
    for chunk in chunks:
        if stop.is_set():
            return
        yield chunk
