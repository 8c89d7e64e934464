"""Operations of convolutions and of residual blocks of two, from the shapes of their kernels and grids.

Of one image: `m` output pixels, kernels of `o` offsets from `d` onto `e` channels, `h` hidden ones between two kernels,
`k` features of the next node layer and `j` of this one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from libcore.sections.operations import Operations


@dataclass(frozen=True)
class ConvolutionShape:
    """`m`, `o`, `d`, `e` of one convolution."""

    pixels_out: int
    offsets: int
    d_in: int
    d_out: int

    def forward(self) -> int:
        """Of a pass."""
        return 2 * self.pixels_out * self.offsets * self.d_in * self.d_out

    def contributions(self, n_in: int, per_offset: int) -> int:
        """At every output pixel, of each of `n_in` features by itself, so many numbers at each offset."""
        return 2 * n_in * self.pixels_out * self.offsets * per_offset

    def gram(self, n_out: int) -> Operations:
        """`sum_o n_o K_o P K_o^T`: no data."""
        return Operations(once=2 * self.offsets * self.d_in * n_out * (self.d_out + self.d_in))

    def edges(self, n_positions: int, n_in: int, n_out: int) -> Operations:
        """Of a single convolution."""
        in_bases = 2 * self.offsets * n_in * self.d_out * (self.d_in + n_out)
        return Operations(2 * n_positions * self.d_in * n_in + self.contributions(n_in, n_out), in_bases)


@dataclass(frozen=True)
class Overlapping:
    """Hidden pixels that share an input and an output pixel at one displacement: how many, and at how many pairs of
    offsets of either kernel."""

    pixels: int
    first: int
    second: int


def residual_gram(
    first: ConvolutionShape,
    second: ConvolutionShape,
    residual: ConvolutionShape,
    overlaps: Iterable[Overlapping],
    n_out: int,
) -> Operations:
    """Grams of the derivative for every pair of hidden pixels that share an input and an output pixel."""
    d, h, k = first.d_in, first.d_out, n_out
    each, once = first.forward(), 2 * second.offsets * h * second.d_out * k
    for overlap in overlaps:
        each += 2 * h * h * overlap.pixels
        once += 2 * h * h * k * overlap.second + 2 * (d * h * h + d * d * h) * overlap.first
    crossed = 2 * first.offsets * second.offsets * (h * k * d + d * h * d)
    return residual.gram(k) + Operations(each, once + crossed)


def residual_edges(
    first: ConvolutionShape,
    second: ConvolutionShape,
    residual: ConvolutionShape,
    n_positions: int,
    n_in: int,
    n_out: int,
) -> Operations:
    """What each feature contributes to the hidden pixels, through the second kernel, and beside it."""
    each = 4 * n_positions * first.d_in * n_in + first.forward()
    each += first.contributions(n_in, first.d_out) + second.contributions(n_in, first.d_out * n_out)
    return Operations(each + residual.contributions(n_in, n_out))
