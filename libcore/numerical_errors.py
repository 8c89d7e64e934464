"""Numbers that are not finite, and matrices that cannot be factorised: said where they come from, in one line.

What was summed over data is looked at, which costs nothing beside the sum. Only where it is not finite, the data are
gone through again for the first example that makes it so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from libcore.streams import ActivationStream

Computed = TypeVar("Computed")


class NumericalError(ValueError):
    """A computation on these weights and inputs that has no finite result; the message is one line."""


def finite_over(
    stream: ActivationStream,
    compute: Callable[[ActivationStream], Computed],
    tensors_of: Callable[[Computed], tuple[Tensor, ...]],
    what: str,
) -> Computed:
    """`compute` of the stream. Raises NumericalError, which names the layer and the first example, if not finite."""

    def is_finite(start: int, stop: int) -> bool:
        return all_finite(*tensors_of(compute(stream.part(start, stop))))

    result = compute(stream)
    if all_finite(*tensors_of(result)):
        return result
    example = first_not_finite(is_finite, stream.n_examples)
    place = f"{stream.name}: " if stream.name else ""
    if example is None:
        raise NumericalError(f"{place}{what} is finite on every example, but their sum is not")
    raise NumericalError(f"{place}{what} is not finite on {numbered(example, stream.n_examples)}")


def all_finite(*tensors: Tensor) -> bool:
    """Whether no tensor holds NaN or infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def first_not_finite(is_finite: Callable[[int, int], bool], n_examples: int) -> int | None:
    """The first example of which what is computed is not finite, by halving; None where each by itself is finite."""
    start, stop = 0, n_examples
    while stop - start > 1:
        middle = (start + stop) // 2
        if is_finite(start, middle):
            start = middle
        else:
            stop = middle
    return None if is_finite(start, stop) else start


def first_not_finite_in(activation: Tensor) -> int | None:
    """The first example `[example, ...]` that holds NaN or infinity; None where there is none."""
    is_finite = activation.isfinite().flatten(1).all(1)
    return None if is_finite.all() else int(is_finite.int().argmin())


def not_finite_on(layer: str, example: int, n_examples: int) -> NumericalError:
    """What is said of a node layer's activation."""
    return NumericalError(f"{layer}: the activation is not finite on {numbered(example, n_examples)}")


def numbered(example: int, n_examples: int) -> str:
    """Which example, in words."""
    return f"example {example} of {n_examples}, counted from 0"
