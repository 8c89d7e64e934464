"""Several processes that compute one result, each on its share of the examples (`torchrun`).

All of them run the same program. What is a sum over examples is summed over each process's own first, then over
processes, so that all know it; everything else they do alike. In a single process nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Result = TypeVar("Result")

WAITS_AT_MOST = timedelta(hours=12)
"""For another process that still computes; one that has ended is noticed at once."""


class ProcessLost(Exception):
    """Another process of the run has ended."""


@contextmanager
def joined() -> Generator[None]:
    """The processes that `torchrun` has started together, for as long as the block lasts; they leave it together.

    A thread of gloo's that drops the last exchange's tensors while the interpreter is already being taken apart aborts
    the process (PyTorch 2.14); the barrier, which holds none, gives it the time. A command's process ends without that
    taking apart (`experiments.start_up.process_of`).
    """
    if number_started() == 1 or distributed.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=WAITS_AT_MOST)
    try:
        yield
        together(distributed.barrier)
    finally:
        distributed.destroy_process_group()


def number_started() -> int:
    """How many processes the launcher has begun, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def count() -> int:
    """How many compute together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This one's number; the first is 0, and writes what is to be written."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own(number_of_shares: int) -> range:
    """Numbers of the shares that this process computes."""
    return range(rank(), number_of_shares, count())


def gathered(of_own: Sequence[Result], number_of_shares: int) -> list[Result]:
    """Every share's result in order, from each process's results of its `own` ones."""
    if count() == 1:
        return list(of_own)
    of_all: list[Any] = [None] * count()
    together(lambda: distributed.all_gather_object(of_all, list(of_own)))
    return [of_all[number % count()][number // count()] for number in range(number_of_shares)]


def merged(of_own: Mapping[int, Result]) -> dict[int, Result]:
    """What all processes know, by number."""
    if count() == 1:
        return dict(of_own)
    of_all: list[Any] = [None] * count()
    together(lambda: distributed.all_gather_object(of_all, dict(of_own)))
    return {number: result for of_process in of_all for number, result in of_process.items()}


def summed(of_own: Tensor) -> Tensor:
    """Over all processes."""
    if count() == 1:
        return of_own
    total = of_own.clone()
    together(lambda: distributed.all_reduce(total))
    return total


def from_first(value: Result) -> Result:
    """What the first process has, in all of them."""
    if count() == 1:
        return value
    held: list[Any] = [value]
    together(lambda: distributed.broadcast_object_list(held, src=0))
    return held[0]


def together(exchange: Callable[[], object]) -> None:
    """What all processes do at once; raises ProcessLost where one of them is not there any more."""
    try:
        exchange()
    # Depending on how the other one ended: a closed connection, one that was reset, a time that ran out.
    except RuntimeError as error:
        raise ProcessLost("another process of the run has ended") from error
