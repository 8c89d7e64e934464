"""The examples of an evaluation: which thread takes which, how many go through the model at once, from which layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from libcore.chain import Chain
from libcore.parallel import in_threads
from libcore.sections import Section, compose
from libcore.sections.merging import merged
from libcore.streams import ActivationStream, rows_per_chunk

Result = TypeVar("Result")

BYTES_IN_CACHE = 3 * 2**22
"""Working set of the examples that one thread takes through the model at once on a CPU: what the caches hold."""


@dataclass(frozen=True)
class Examples:
    """Examples in parts, one for each thread, and in blocks within a part.

    Attributes:
        count: of all examples.
        most: of a block.
        on_gpu: where one thread takes all.
    """

    count: int
    most: int
    on_gpu: bool

    @classmethod
    def of(
        cls, chain: Chain, inputs: Tensor, index: int, memory_budget: int, stream: ActivationStream | None = None
    ) -> Examples:
        """What goes through the chain from node layer number `index` within the budget; `stream` gives that layer."""
        on_gpu = inputs.is_cuda
        n_threads = 1 if on_gpu else torch.get_num_threads()
        values = 2 * max(values_alive(chain, inputs, index), 0 if stream is None else stream.values_to_produce)
        in_budget = memory_budget // n_threads
        return cls(len(inputs), rows_per_chunk(values, in_budget if on_gpu else min(in_budget, BYTES_IN_CACHE)), on_gpu)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """`(start, stop)` of each thread's examples."""
        n_parts = 1 if self.on_gpu else min(torch.get_num_threads(), self.count)
        bounds = [self.count * number // n_parts for number in range(n_parts + 1)]
        return list(pairwise(bounds))

    def blocks(self, part: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """`(start, stop)` of what a thread takes at once."""
        for start in range(*part, self.most):
            yield start, min(start + self.most, part[1])

    def mapped(self, work: Callable[[int, int], Result]) -> list[Result]:
        """`work` on every block, without gradients; results in the examples' order."""

        def of_part(part: tuple[int, int], check: Callable[[], None]) -> list[Result]:
            results = []
            with torch.no_grad():
                for block in self.blocks(part):
                    check()
                    results.append(work(*block))
            return results

        return [result for results in in_threads(of_part, self.parts, self.on_gpu) for result in results]


def values_alive(chain: Chain, inputs: Tensor, index: int) -> int:
    """Numbers alive per example on the way from node layer number `index` to the output."""
    with torch.no_grad():
        activation, most = chain.activation(inputs[:1], index), 0
        for section in (*chain.sections[index:], *(() if chain.tail is None else (chain.tail,))):
            most = max(most, section.forward_values(activation))
            activation = section(activation)
    return max(most, activation.numel())


def sections_from(chain: Chain, index: int, *before: Section) -> tuple[Section, ...]:
    """`before`, then the model from node layer number `index` to its output; linear maps multiplied out."""
    tail = () if chain.tail is None else (chain.tail,)
    return merged((*before, *chain.sections[index:], *tail))


def identity(activation: Tensor) -> Tensor:
    """Where no section follows."""
    return activation


def rest_of(sections: tuple[Section, ...]) -> Callable[[Tensor], Tensor]:
    """Their composition."""
    return compose(sections) if sections else identity


def part_of(stream: ActivationStream, part: tuple[int, int]) -> ActivationStream:
    """The same stream, counted from the part's first example."""
    first, last = part

    def produce(start: int, stop: int) -> Tensor:
        return stream.produce(first + start, first + stop)

    return ActivationStream(produce, last - first, stream.memory_budget, stream.values_to_produce)
