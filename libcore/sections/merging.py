"""Linear maps between sections multiplied into one another, where the composition then takes fewer multiplications."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from libcore.sections.affine import AffineSection
from libcore.sections.base import LinearFirst, LinearLast, Section
from libcore.sections.composed import ComposedSection


class AfterLinear(Section):
    """What a section does after its first linear map."""

    def __init__(self, section: LinearFirst) -> None:
        self.section = section

    def __call__(self, activation: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position_out d_out"]:
        return self.section.after_linear(activation)


def merged(sections: Iterable[Section]) -> tuple[Section, ...]:
    """The same composition: from the last section to the first, each takes the next one's linear map into its own.

    An MLP before the unembedding writes logits instead of a residual stream; features written in a basis are read by
    the next section's weights directly. Round-off apart, outputs are the same.
    """
    merged: list[Section] = []
    for section in reversed(list(flat(sections))):
        if merged:
            shorter = taking_in(section, merged[0])
            if shorter is not None:
                merged[:1] = shorter
                continue
        merged.insert(0, section)
    return tuple(merged)


def flat(sections: Iterable[Section]) -> Iterable[Section]:
    """Compositions taken apart."""
    for section in sections:
        if isinstance(section, ComposedSection):
            yield from flat(section.sections)
        else:
            yield section


def taking_in(section: Section, following: Section) -> list[Section] | None:
    """`section` with the linear map of the one that follows in its own, and what is left of that; None if dearer."""
    if not (isinstance(section, LinearLast) and isinstance(following, LinearFirst)):
        return None
    both = section.followed_by(following.linear)
    if both.weights_written > section.weights_written + following.linear.numel():
        return None
    return [both] if isinstance(following, AffineSection) else [both, AfterLinear(following)]
