"""The examples of an evaluation: which thread takes which, how many go through the model at once, from which layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from libcore import processes
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
        """`(start, stop)` of what a thread of this process takes before it takes the next."""
        bounds = [self.count * number // self.n_parts for number in range(self.n_parts + 1)]
        every = list(pairwise(bounds))
        return [every[number] for number in processes.own(self.n_parts)]

    @property
    def n_parts(self) -> int:
        """Of all processes."""
        return shares_for(1 if self.on_gpu else torch.get_num_threads(), self.count)

    def blocks(self, part: Block) -> Iterator[Block]:
        """`(start, stop)` of what a thread takes through the model at once, evenly many."""
        first, last = part
        n_blocks = -(-(last - first) // self.most)
        bounds = [first + (last - first) * number // n_blocks for number in range(n_blocks + 1)]
        yield from pairwise(bounds)

    def in_parts(self, work: Callable[[Item, Iterator[Block]], Result], of_parts: Sequence[Item]) -> list[Result]:
        """`work` on what each part has of its own and on its blocks, without gradients; results in the parts' order.

        Of this process's parts alone.
        """

        def of_part(part_and_item: tuple[Block, Item], check: Callable[[], None]) -> Result:
            part, item = part_and_item
            with torch.no_grad():
                return work(item, checked(self.blocks(part), check))

        return in_threads(of_part, list(zip(self.parts, of_parts, strict=True)), self.on_gpu)

    def mapped(self, work: Callable[[int, int], Result]) -> list[Result]:
        """`work` on every block, without gradients; results in the examples' order, all processes' among them."""
        of_own = self.in_parts(lambda _, blocks: [work(*block) for block in blocks], self.parts)
        of_parts = processes.gathered(of_own, self.n_parts)
        return [result for results in of_parts for result in results]


def sums(of_parts: Sequence[Sequence[float]], n: int) -> list[float]:
    """Over the parts of all processes, of `n` numbers each."""
    of_own = [sum(numbers) for numbers in zip(*of_parts, strict=True)] if of_parts else [0.0] * n
    return processes.summed(torch.tensor(of_own, dtype=torch.float64)).tolist()


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
