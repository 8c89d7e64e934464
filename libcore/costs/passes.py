"""How often a model is passed through so that a stage can read every node layer's activations (`Chain.streams`)."""

from __future__ import annotations

from dataclasses import dataclass

from libcore.costs.shapes import ChainShapes
from libcore.held_activations import chosen_to_hold


@dataclass(frozen=True)
class Passes:
    """Activations of `n_examples` examples that are held, and what the others take to compute again.

    Attributes:
        held: numbers of the node layers that are, in memory or on disk.
        in_memory, on_disk: bytes.
    """

    shapes: ChainShapes
    n_examples: int
    held: tuple[int, ...]
    in_memory: int
    on_disk: int

    @classmethod
    def of(cls, shapes: ChainShapes, n_examples: int, memory_budget: int, disk_room: int) -> Passes:
        """As `Chain.streams` chooses."""
        sizes = [n_examples * example.nbytes for example in shapes.examples[: len(shapes.sections)]]
        in_memory = chosen_to_hold(sizes, memory_budget // 2, ())
        on_disk = chosen_to_hold(sizes, disk_room, in_memory)
        in_bytes = (sum(sizes[index] for index in chosen) for chosen in (in_memory, on_disk))
        return cls(shapes, n_examples, tuple(sorted([*in_memory, *on_disk])), *in_bytes)

    def holding(self) -> int:
        """Operations of the one pass that fills what is held."""
        return self.n_examples * self.shapes.forward(max(self.held)) if self.held else 0

    def reading(self, index: int) -> int:
        """Operations of reading all examples' activations of one node layer once."""
        if index in self.held:
            return 0
        before = [number for number in self.held if number < index]
        return self.n_examples * (self.shapes.through(max(before), index) if before else self.shapes.forward(index))
