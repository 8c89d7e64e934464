"""Where kernels overlap: which pixels two convolutions in a row connect, borders included.

A hidden pixel `m` reads input pixels `s` through the offsets of a first kernel and is read by output pixels `t` through
those of a second. A Jacobian Gram sums over pairs `m`, `m + Δ` of hidden pixels that share both an input and an output
pixel. Rows and columns are independent, so everything here is about one axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A kernel of `size` offsets moving along an axis of `size_in` pixels.

    Output pixel `t` reads input pixel `stride t + o - padding` at offset `o`.
    """

    size: int
    stride: int
    padding: int
    size_in: int

    @property
    def size_out(self) -> int:
        """Output pixels."""
        return (self.size_in + 2 * self.padding - self.size) // self.stride + 1

    def reads(self) -> Int[Tensor, "size_out size"]:
        """Which input pixel every output pixel reads at every offset; -1 for padding."""
        pixel = self.stride * torch.arange(self.size_out)[:, None] + torch.arange(self.size) - self.padding
        return torch.where((pixel >= 0) & (pixel < self.size_in), pixel, -1)

    def counts(self) -> list[int]:
        """At how many output pixels each offset lies in the image."""
        return (self.reads() >= 0).sum(0).tolist()


@dataclass(frozen=True)
class PixelClass:
    """Hidden pixels alike in everything a Jacobian Gram depends on.

    Attributes:
        pixels: their numbers along the axis.
        first: offsets of the first kernel at which they read a pixel of the image.
        second: offsets of the second kernel at which an output pixel reads them.
    """

    pixels: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]


def pixel_classes(first: Window, second: Window) -> list[PixelClass]:
    """All hidden pixels between two windows, sorted into classes: a few at the borders and those in between."""
    read = first.reads() >= 0
    reading = torch.zeros(second.size_in, second.size, dtype=torch.bool)
    for offset, hidden in enumerate(second.reads().T):
        reading[hidden[hidden >= 0], offset] = True
    members: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for pixel in range(second.size_in):
        key = (tuple(read[pixel].nonzero()[:, 0].tolist()), tuple(reading[pixel].nonzero()[:, 0].tolist()))
        members.setdefault(key, []).append(pixel)
    return [PixelClass(tuple(pixels), *offsets) for offsets, pixels in members.items()]


@dataclass(frozen=True)
class Overlap:
    """Pairs of hidden pixels `m`, `m + displacement`, and the offsets through which they meet.

    Attributes:
        displacement: `Δ`.
        pixels: the `m` of one class for which `m + Δ` is a pixel too.
        first: pairs of offsets of the first kernel, at `m` and at `m + Δ`, that read the same input pixel.
        second: pairs of offsets of the second kernel, at `m` and at `m + Δ`, read by the same output pixel.
    """

    displacement: int
    pixels: tuple[int, ...]
    first: tuple[tuple[int, int], ...]
    second: tuple[tuple[int, int], ...]


def overlaps(first: Window, second: Window) -> list[Overlap]:
    """Every way in which two hidden pixels share an input and an output pixel."""
    furthest = min((first.size - 1) // first.stride, second.size - 1)
    found: list[Overlap] = []
    for displacement in range(-furthest, furthest + 1):
        for pixel_class in pixel_classes(first, second):
            shared_input = [(o, o - first.stride * displacement) for o in pixel_class.first]
            shared_output = [(a, a + displacement) for a in pixel_class.second]
            overlap = Overlap(
                displacement,
                tuple(pixel for pixel in pixel_class.pixels if 0 <= pixel + displacement < second.size_in),
                tuple(pair for pair in shared_input if 0 <= pair[1] < first.size),
                tuple(pair for pair in shared_output if 0 <= pair[1] < second.size),
            )
            if overlap.pixels and overlap.first and overlap.second:
                found.append(overlap)
    return found
