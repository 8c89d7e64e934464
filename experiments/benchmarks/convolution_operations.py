"""Operations of convolutions and of residual blocks of two.

Between `n` images, a first kernel onto `h` hidden channels and a second one onto `k` features, a Jacobian Gram takes

    n h² for every pair of hidden pixels that share an input and an output pixel, and
    2 h² k or 2 (d h² + d² h) for the offsets of either kernel at which they do

each pair once, being as good as its mirror image; and edges take, for each of `j` features by itself,

    2 n j o h at every hidden pixel, `o` offsets of the first kernel, and
    2 n j o h k at every output pixel, `o` of the second; the residual path the same with its own offsets.
"""

from __future__ import annotations

from itertools import product

from torch import Tensor

from libcore.basis import Basis
from libcore.sections import ConvolutionSection, ResidualConvolutionSection
from libcore.sections.convolution.kernel_overlap import overlaps


def convolution_gram_operations(
    section: ResidualConvolutionSection | ConvolutionSection, n: int, next_basis: Basis
) -> int:
    """Of the Jacobian Gram on `n` images."""
    k = next_basis.n_features
    if isinstance(section, ConvolutionSection):
        return linear_gram_operations(section, k)
    d, h = section.first.kernel.shape[2:]
    e = section.second.kernel.shape[3]
    found = linear_gram_operations(section.residual, k) + 2 * offsets(section.second) * h * e * k
    rows, columns = (overlaps(*pair) for pair in zip(section.first.windows, section.second.windows, strict=True))
    for row, column in product(rows, columns):
        found += n * h * h * len(row.pixels) * len(column.pixels)
        found += len(row.second) * len(column.second) * h * h * k
        found += len(row.first) * len(column.first) * (d * h * h + d * d * h)
    return found


def linear_gram_operations(section: ConvolutionSection, k: int) -> int:
    """`sum_o n_o K_o P K_o^T`."""
    d, e = section.kernel.shape[2:]
    return offsets(section) * (2 * d * e * k + d * d * k)


def convolution_edge_operations(
    section: ResidualConvolutionSection | ConvolutionSection,
    activation: Tensor,
    n: int,
    basis: Basis,
    next_basis: Basis,
) -> int:
    """Of edges on `n` images."""
    j, k = basis.n_features, next_basis.n_features
    features = 2 * n * activation.shape[1] * basis.d * j
    if isinstance(section, ConvolutionSection):
        return features + contributions(section, n, j, k)
    h = section.second.kernel.shape[2]
    through_hidden = contributions(section.first, n, j, h) + contributions(section.second, n, j, h * k)
    return features + through_hidden + contributions(section.residual, n, j, k)


def contributions(section: ConvolutionSection, n: int, j: int, per_offset: int) -> int:
    """At every output pixel, of each of `j` features."""
    rows, columns = section.grid_out
    return 2 * n * j * rows * columns * offsets(section) * per_offset


def offsets(section: ConvolutionSection) -> int:
    """Of the kernel's window."""
    return section.kernel.shape[0] * section.kernel.shape[1]
