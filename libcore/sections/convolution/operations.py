"""Operations of convolutions and of residual blocks of two, from the shapes of their kernels and grids.

Of one image: `m` output pixels, kernels of `o` offsets from `d` onto `e` channels, `h` hidden ones between two kernels,
`k` features of the next node layer and `j` of this one.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from libcore.sections.operations import Operations

if TYPE_CHECKING:
    from libcore.sections.convolution.convolution import ConvolutionSection
    from libcore.sections.convolution.kernel_overlap import Overlap
    from libcore.sections.convolution.residual import ResidualConvolutionSection


def convolution_forward(section: ConvolutionSection) -> int:
    """`2 m o d e`."""
    return 2 * section.grid_out[0] * section.grid_out[1] * section.kernel.numel()


def contributions(section: ConvolutionSection, n_in: int, per_offset: int) -> int:
    """At every output pixel, of each of `n_in` features by itself, so many numbers at each offset."""
    rows, columns = section.grid_out
    return 2 * n_in * rows * columns * section.kernel.shape[0] * section.kernel.shape[1] * per_offset


def linear_gram(section: ConvolutionSection, n_out: int) -> Operations:
    """`sum_o n_o K_o P K_o^T`: no data."""
    d_in = section.kernel.shape[2]
    offsets = section.kernel.shape[0] * section.kernel.shape[1]
    return Operations(once=2 * section.kernel.numel() * n_out + 2 * offsets * d_in * d_in * n_out)


def linear_edges(section: ConvolutionSection, n_positions: int, n_in: int, n_out: int) -> Operations:
    """Of a single convolution."""
    d_in, d_out = section.kernel.shape[2:]
    features = 2 * n_positions * d_in * n_in
    offsets = section.kernel.shape[0] * section.kernel.shape[1]
    return Operations(
        features + contributions(section, n_in, n_out), 2 * offsets * (n_in * d_in * d_out + n_in * d_out * n_out)
    )


def residual_gram(
    section: ResidualConvolutionSection, overlaps: list[tuple[Overlap, Overlap]], n_out: int
) -> Operations:
    """Grams of the derivative for every pair of hidden pixels that share an input and an output pixel."""
    (d, h), k = section.first.kernel.shape[2:], n_out
    each, once = convolution_forward(section.first), 2 * section.second.kernel.numel() * k
    for row, column in overlaps:
        each += 2 * h * h * len(row.pixels) * len(column.pixels)
        once += 2 * h * h * k * len(row.second) * len(column.second)
        once += 2 * (d * h * h + d * d * h) * len(row.first) * len(column.first)
    offsets = list(
        product(*(range(size) for kernel in (section.first, section.second) for size in kernel.kernel.shape[:2]))
    )
    crossed = len(offsets) * 2 * (h * k * d + d * h * d)
    return linear_gram(section.residual, k) + Operations(each, once + crossed)


def residual_edges(section: ResidualConvolutionSection, n_positions: int, n_in: int, n_out: int) -> Operations:
    """What each feature contributes to the hidden pixels, through the second kernel, and beside it."""
    (d, h), j, k = section.first.kernel.shape[2:], n_in, n_out
    each = 4 * n_positions * d * j + convolution_forward(section.first)
    each += contributions(section.first, j, h) + contributions(section.second, j, h * k)
    return Operations(each + contributions(section.residual, j, k))
