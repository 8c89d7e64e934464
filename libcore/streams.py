"""Streams of activations in chunks whose size follows from a memory budget, not from the size of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from libcore import processes
from libcore.held_activations import Held

OnChunk = Callable[[int, int], None]
"""`(examples done, examples in all)`, called after every chunk, by whatever thread used it."""


def unwatched(*_: object) -> None:
    """Where nobody asks how far a pass over data has come."""


@dataclass(frozen=True)
class ActivationStream:
    """One node layer's activations over a data set, recomputed chunk by chunk.

    `produce(start, stop)` returns the activations `[stop - start, position, d]` of those examples.
    `memory_budget` is in bytes and bounds the working set that one chunk may bring with it. `values_to_produce` counts
    the numbers alive per example while `produce` runs: an early, wide layer costs memory for a late, narrow one too.
    `on_chunk` is told how far each pass has come; `name` is the node layer's, for errors.
    """

    produce: Callable[[int, int], Tensor]
    n_examples: int
    memory_budget: int
    values_to_produce: int = 0
    on_chunk: OnChunk = unwatched
    name: str = ""

    def chunks(self, values_per_example: int, first: int = 0, every: int = 1) -> Iterator[Tensor]:
        """Activations in order; `values_per_example` counts the numbers alive per example while a chunk is used.

        Of all chunks, number `first` and then each `every`-th.
        """
        for _, activation in self._numbered(self._chunk_size(values_per_example), first, every):
            yield activation

    def own_chunks(self, values_per_example: int) -> Iterator[tuple[int, Tensor]]:
        """Those that this process takes of all, each with its first example's number; sums over them are to be summed
        over processes."""
        size = min(self._chunk_size(values_per_example), -(-self.n_examples // processes.count()))
        return self._numbered(size, processes.rank(), processes.count())

    def _chunk_size(self, values_per_example: int) -> int:
        return rows_per_chunk(max(values_per_example, self.values_to_produce), self.memory_budget)

    def _numbered(self, size: int, first: int, every: int) -> Iterator[tuple[int, Tensor]]:
        for start in range(first * size, self.n_examples, every * size):
            stop = min(start + size, self.n_examples)
            yield start, self.produce(start, stop)
            self.on_chunk(stop, self.n_examples)

    def within(self, memory_budget: int) -> ActivationStream:
        """The same activations in chunks of another budget."""
        return replace(self, memory_budget=memory_budget)

    def first(self, n_examples: int) -> ActivationStream:
        """The activations of the first examples."""
        return replace(self, n_examples=n_examples)

    def part(self, start: int, stop: int) -> ActivationStream:
        """The activations of examples `start` to `stop`, which nobody watches."""

        def produce(first: int, last: int) -> Tensor:
            return self.produce(start + first, start + last)

        return replace(self, produce=produce, n_examples=stop - start, on_chunk=unwatched)

    def example(self) -> Tensor:
        """The first example's activation `[1, position, d]`: shapes and dtype to plan with."""
        return self.produce(0, 1)


def stream_of_held(
    activations: Held, memory_budget: int, on_chunk: OnChunk = unwatched, name: str = ""
) -> ActivationStream:
    """Activations `[example, position, d]` that are there already, in memory or on disk."""
    return ActivationStream(
        lambda start, stop: activations[start:stop], len(activations), memory_budget, on_chunk=on_chunk, name=name
    )


def rows_per_chunk(values_per_row: int, memory_budget: int) -> int:
    """How many rows fit into the budget, at least one; every value counts as a float64, what sums are taken in."""
    return max(1, memory_budget // (8 * max(1, values_per_row)))


def within_cache(budget: int, in_cache: int, like: Tensor) -> int:
    """What is worked on at a time: what a CPU's caches hold; on a GPU the budget, since an operation takes longest to
    begin there."""
    return budget if like.is_cuda else min(budget, in_cache)


def float64_zeros(*shape: int, like: Tensor) -> Tensor:
    """Accumulator for sums over data: float64 whatever the data's dtype, on the data's device."""
    return torch.zeros(*shape, dtype=torch.float64, device=like.device)
