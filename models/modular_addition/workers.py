"""Threads that compute on shares of the examples, each share with one thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from models.modular_addition.data import Examples

EXAMPLES_PER_SHARE = 512
"""At least so many, so that a share is long against handing it out."""

Result = TypeVar("Result")


class Workers:
    """A context in which `map` shares examples out to as many threads as torch uses (to one on a GPU).

    A training step's operations are too short to be shared themselves: two threads that wait for each other in every
    one of them took ten times as long as one, with another process on the same two cores.
    """

    def __init__(self, device: torch.device) -> None:
        self.before = torch.get_num_threads()
        self.n_threads = self.before if device.type == "cpu" else 1

    def __enter__(self) -> Workers:
        self.pool = ThreadPoolExecutor(self.n_threads, initializer=compute_alone)
        torch.set_num_threads(1)
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown()
        torch.set_num_threads(self.before)

    def map(self, work: Callable[[Examples], Result], examples: Examples) -> list[Result]:
        """`work` on every share; results in the examples' order. The same number of threads gives the same shares."""
        n_shares = min(self.n_threads, len(examples) // EXAMPLES_PER_SHARE)
        if n_shares < 2:
            return [work(examples)]
        tokens, labels = examples.tokens.tensor_split(n_shares), examples.labels.tensor_split(n_shares)
        return list(self.pool.map(work, map(Examples, tokens, labels)))


def compute_alone() -> None:
    """One thread, and denormals flushed to zero, which each thread does for itself."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
