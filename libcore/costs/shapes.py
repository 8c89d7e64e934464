"""The shapes of a chain that its costs depend on: sections, and one example's activation of every node layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from libcore.chain import Chain
from libcore.sections import AffineSection, ResidualElementwiseSection, Section


@dataclass(frozen=True)
class ChainShapes:
    """A chain, of whose numbers only shapes matter; made by hand where there are no weights.

    Attributes:
        sections: one less than there are node layers.
        examples: by node layer, `[1, position, d]`.
        tail: from the last node layer to the output, None where that is the output.
        embedding: operations of the sections before the first node layer, on one example; looking up is none.
    """

    sections: tuple[Section, ...]
    examples: tuple[Tensor, ...]
    tail: Section | None = None
    embedding: int = 0

    @classmethod
    def of(cls, chain: Chain, inputs: Tensor) -> ChainShapes:
        """From one pass of the first example."""
        with torch.no_grad():
            examples, embedding, activation = tuple(chain.activations(inputs[:1])), 0, chain.embed(inputs[:1])
            for section in chain.before:
                embedding += section.forward_operations(activation)
                activation = section(activation)
        return cls(chain.sections, examples, chain.tail, embedding)

    @cached_property
    def of_sections(self) -> list[int]:
        """Operations of a pass through each, on one example."""
        counts: dict[int, int] = {}
        for section, example in zip(self.sections, self.examples, strict=False):
            if id(section) not in counts:
                counts[id(section)] = section.forward_operations(example)
        return [counts[id(section)] for section in self.sections]

    def through(self, start: int, stop: int | None = None) -> int:
        """Operations from one node layer to another, on one example."""
        return sum(self.of_sections[start:stop])

    def forward(self, stop: int | None = None) -> int:
        """Operations from the inputs to a node layer, by default the last, on one example."""
        return self.embedding + self.through(0, stop)

    @cached_property
    def to_output(self) -> int:
        """Operations from the last node layer to the output, on one example."""
        return 0 if self.tail is None else self.tail.forward_operations(self.examples[-1])

    @cached_property
    def alive(self) -> int:
        """Numbers alive in a pass through the sections, of one example, at most."""
        distinct = {
            id(section): (section, example) for section, example in zip(self.sections, self.examples, strict=False)
        }
        return max(section.forward_values(example) for section, example in distinct.values())

    @property
    def widths(self) -> list[int]:
        """Coordinates of every node layer."""
        return [example.shape[-1] for example in self.examples]

    @property
    def dtype(self) -> str:
        """Of activations."""
        return str(self.examples[0].dtype).removeprefix("torch.")

    def most_features(self) -> list[int]:
        """How many features every node layer's basis may have: as many as coordinates, or as directions are read."""
        found = [self.widths[-1]]
        for section, width in zip(reversed(self.sections), reversed(self.widths[:-1]), strict=True):
            few = directions_read(section, found[0])
            found.insert(0, width if few is None else min(width, few + 1))
        return found


def directions_read(section: Section, n_out: int) -> int | None:
    """How many directions `n_out` features behind the section can depend on; None where that may be all."""
    if isinstance(section, AffineSection):
        return n_out
    if isinstance(section, ResidualElementwiseSection):
        return section.weight_in.shape[1] + (1 if section.carries_constant_alone else n_out)
    return None
