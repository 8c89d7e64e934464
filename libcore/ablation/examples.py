"""The examples of an evaluation: which thread takes which, how many go through the model at once, from which layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from libcore.chain import Chain
from libcore.parallel import checked, in_threads, shares_for, threads_for
from libcore.streams import ActivationStream, rows_per_chunk, within_cache

Item = TypeVar("Item")
Result = TypeVar("Result")
Block = tuple[int, int]
"""Examples `start` to `stop`."""

BYTES_IN_CACHE = 6 * 2**22
"""Working set of the examples that one thread takes through the model at once on a CPU: what the caches hold."""


@dataclass(frozen=True)
class Examples:
    """Examples in parts, some for each thread, and in blocks within a part.

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
        values = 2 * max(values_alive(chain, inputs, index), 0 if stream is None else stream.values_to_produce)
        in_budget = memory_budget // threads_for(inputs)
        return cls(len(inputs), rows_per_chunk(values, within_cache(in_budget, BYTES_IN_CACHE, inputs)), inputs.is_cuda)

    @property
    def parts(self) -> list[Block]:
        """`(start, stop)` of what a thread takes before it takes the next."""
        n_parts = 1 if self.on_gpu else shares_for(torch.get_num_threads(), self.count)
        bounds = [self.count * number // n_parts for number in range(n_parts + 1)]
        return list(pairwise(bounds))

    def blocks(self, part: Block) -> Iterator[Block]:
        """`(start, stop)` of what a thread takes through the model at once, evenly many."""
        first, last = part
        n_blocks = -(-(last - first) // self.most)
        bounds = [first + (last - first) * number // n_blocks for number in range(n_blocks + 1)]
        yield from pairwise(bounds)

    def in_parts(self, work: Callable[[Item, Iterator[Block]], Result], of_parts: Sequence[Item]) -> list[Result]:
        """`work` on what each part has of its own and on its blocks, without gradients; results in the parts' order."""

        def of_part(part_and_item: tuple[Block, Item], check: Callable[[], None]) -> Result:
            part, item = part_and_item
            with torch.no_grad():
                return work(item, checked(self.blocks(part), check))

        return in_threads(of_part, list(zip(self.parts, of_parts, strict=True)), self.on_gpu)

    def mapped(self, work: Callable[[int, int], Result]) -> list[Result]:
        """`work` on every block, without gradients; results in the examples' order."""
        of_parts = self.in_parts(lambda _, blocks: [work(*block) for block in blocks], self.parts)
        return [result for results in of_parts for result in results]


def values_alive(chain: Chain, inputs: Tensor, index: int) -> int:
    """Numbers alive per example on the way from node layer number `index` to the output."""
    with torch.no_grad():
        activation, most = chain.activation(inputs[:1], index), 0
        for section in chain.sections_from(index):
            most = max(most, section.forward_values(activation))
            activation = section(activation)
    return max(most, activation.numel())


def part_of(stream: ActivationStream, part: Block) -> ActivationStream:
    """The same stream, counted from the part's first example."""
    first, last = part

    def produce(start: int, stop: int) -> Tensor:
        return stream.produce(first + start, first + stop)

    return ActivationStream(produce, last - first, stream.memory_budget, stream.values_to_produce)
