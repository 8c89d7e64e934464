"""Several sections as one: what lies between two node layers when those between them are left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from libcore.sections.base import Section


class ComposedSection(Section):
    """`f -> last(... first(f))`, differentiated as a whole."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.sections = tuple(sections)

    def __call__(self, activation: Tensor) -> Tensor:
        for section in self.sections:
            activation = section(activation)
        return activation

    def forward_values(self, example: Tensor) -> int:
        values = 0
        for section in self.sections:
            values = max(values, section.forward_values(example))
            example = section(example)
        return values

    def forward_operations(self, example: Tensor) -> int:
        found = 0
        for section in self.sections:
            found += section.forward_operations(example)
            with torch.no_grad():
                example = section(example)
        return found


def compose(sections: Sequence[Section]) -> Section:
    """The one section itself, or their composition; a single section keeps its closed forms."""
    return sections[0] if len(sections) == 1 else ComposedSection(sections)
