"""Any section with only the first features kept, for growing numbers of them (METHOD.md 4, node ablation)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.sections.base import FastKeptEvaluation, KeptEvaluation, KeptOutputs, LinearFirst, Section
from libcore.streams import ActivationStream


def kept_evaluation(section: Section, stream: ActivationStream, basis: Basis) -> KeptEvaluation:
    """The section's own evaluation where it has one that pays, a growing sum where it begins with a linear map."""
    fast = section.kept_evaluation(stream, basis) if isinstance(section, FastKeptEvaluation) else None
    if fast is not None:
        return fast
    if isinstance(section, LinearFirst):
        return growing_sum(section, stream, basis)
    return number_by_number(section, stream, basis)


def number_by_number(section: Section, stream: ActivationStream, basis: Basis) -> KeptEvaluation:
    """A pass through the section for every number."""

    def at(numbers: Sequence[int]) -> KeptOutputs:
        def of_examples(start: int, stop: int) -> Iterator[Tensor]:
            features = stream.produce(start, stop) @ basis.to_basis[:, : max(numbers)]
            for kept in numbers:
                yield section(features[..., :kept] @ basis.from_basis[:kept])

        return of_examples

    return at


def growing_sum(section: LinearFirst, stream: ActivationStream, basis: Basis) -> KeptEvaluation:
    """What the features add to the section's linear map, kept up as their number grows.

    A further feature costs an update of rank one instead of a pass. The sum begins anew with every call, so that
    round-off grows with the length of `numbers` at most.
    """
    weight = basis.from_basis @ section.linear

    def at(numbers: Sequence[int]) -> KeptOutputs:
        first, last = numbers[0], numbers[-1]
        to_first = shorter((basis.to_basis[:, :first], weight[:first]))
        to_further, of_further = basis.to_basis[:, first:last], weight[first:last]
        steps = [slice(one - first, other - first) for one, other in pairwise((first, *numbers))]

        def of_examples(start: int, stop: int) -> Iterator[Tensor]:
            activation = stream.produce(start, stop)
            total = reduce(torch.matmul, to_first, activation).flatten(0, 1)
            further = (activation @ to_further).flatten(0, 1)
            for step in steps:
                torch.addmm(total, further[:, step], of_further[step], out=total)
                yield section.after_linear(total.unflatten(0, activation.shape[:2]))

        return of_examples

    return at


def shorter(maps: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Two linear maps one after the other, or their product where that takes fewer multiplications per activation."""
    into, out_of = maps
    return maps if into.numel() + out_of.numel() < len(into) * out_of.shape[1] else (into @ out_of,)
