"""Affine maps between activations with constant coordinate: matrices at every position, and convolutions of images.

A map's kernel is `[rows, columns, d_in + 1, d_out + 1]`, one row and column where positions are no pixels. The last
column carries the constant coordinate, so composing maps composes biases too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from libcore.constant import carrying_constant
from libcore.sections import ConvolutionSection

LARGEST_KERNEL = 2**24
"""Entries; a map that needs more is left to differentiation."""


class NoClosedForm(Exception):
    """What is to be expressed is no such map."""


@dataclass(frozen=True)
class AffineMap:
    """`g_t = sum_o f_{stride t + o - padding} @ kernel[o]`, as in `ConvolutionSection`; `grid` is None without one."""

    kernel: Float[Tensor, "rows columns d_in d_out"]
    grid: tuple[int, int] | None
    stride: int = 1
    padding: int = 0

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the kernel."""
        return self.kernel.shape[0], self.kernel.shape[1]

    @property
    def pointwise(self) -> bool:
        """Maps every position by itself."""
        return self.window == (1, 1) and self.stride == 1 and self.padding == 0

    @property
    def matrix(self) -> Float[Tensor, "d_in d_out"]:
        """Of a pointwise map."""
        return self.kernel[0, 0]

    @property
    def grid_out(self) -> tuple[int, int] | None:
        """Rows and columns of the output's pixels."""
        return None if self.grid is None else self.section().grid_out

    def section(self) -> ConvolutionSection:
        """As a section; NoClosedForm if the window does not fit."""
        assert self.grid is not None
        try:
            return ConvolutionSection(self.kernel, self.grid, self.stride, self.padding)
        except ValueError as error:
            raise NoClosedForm(str(error)) from None

    def then(self, other: AffineMap) -> AffineMap:
        """This map, then the other. NoClosedForm where padding keeps the two from being one convolution."""
        if other.pointwise:
            return replace(self, kernel=self.kernel @ other.matrix)
        if (other.padding and self.window != (1, 1)) or self.padding:
            raise NoClosedForm("two convolutions with zeros between them")
        rows, columns = (self.stride * (n - 1) + own for n, own in zip(other.window, self.window, strict=True))
        d_in, d_out = self.kernel.shape[2], other.kernel.shape[3]
        if rows * columns * d_in * d_out > LARGEST_KERNEL:
            raise NoClosedForm("too large")
        kernel = self.kernel.new_zeros(rows, columns, d_in, d_out)
        for row in range(other.window[0]):
            for column in range(other.window[1]):
                at = self.stride * row, self.stride * column
                kernel[at[0] : at[0] + self.window[0], at[1] : at[1] + self.window[1]] += (
                    self.kernel @ other.kernel[row, column]
                )
        return AffineMap(kernel, self.grid, self.stride * other.stride, self.stride * other.padding).trimmed()

    def trimmed(self) -> AffineMap:
        """Without a border of zeros that only padding makes room for."""
        kernel, padding = self.kernel, self.padding
        while padding and min(kernel.shape[:2]) > 2 and not (_border(kernel).any()):
            kernel, padding = kernel[1:-1, 1:-1], padding - 1
        return replace(self, kernel=kernel, padding=padding)

    def plus(self, other: AffineMap) -> AffineMap:
        """The sum, as one kernel that has room for both; NoClosedForm where they move in different steps."""
        if self.pointwise and other.pointwise:
            return replace(self, kernel=self.kernel + other.kernel)
        one_pixel = self.grid_out == other.grid_out == (1, 1)
        if (self.stride != other.stride and not one_pixel) or self.grid_out != other.grid_out:
            raise NoClosedForm("paths that read in different steps")
        padding = max(self.padding, other.padding)
        after = [max(m.window[axis] - m.padding for m in (self, other)) for axis in range(2)]
        kernels = [
            pad(
                m.kernel,
                (
                    0,
                    0,
                    0,
                    0,
                    *(n for axis in (1, 0) for n in (padding - m.padding, after[axis] - m.window[axis] + m.padding)),
                ),
            )
            for m in (self, other)
        ]
        total = AffineMap(kernels[0] + kernels[1], self.grid, max(self.stride, other.stride), padding)
        if total.grid_out != self.grid_out:
            raise NoClosedForm("windows that do not end together")
        return total

    def without_constant(self) -> AffineMap:
        """The output without its constant coordinate."""
        return replace(self, kernel=self.kernel[..., :-1])

    def constant_only(self) -> AffineMap:
        """To zeros and the constant coordinate, as this map carries it."""
        kernel = torch.zeros_like(self.kernel)
        kernel[..., -1] = self.kernel[..., -1]
        return replace(self, kernel=kernel).trimmed()

    def not_carrying(self) -> AffineMap:
        """With zero for the constant coordinate."""
        kernel = self.kernel.clone()
        kernel[..., -1] = 0.0
        return replace(self, kernel=kernel)

    def reading_hidden(self) -> AffineMap:
        """Of an input without constant coordinate, written beside a constant that something else carries."""
        return replace(self.not_carrying(), kernel=self.not_carrying().kernel[..., :-1, :])


def _border(kernel: Tensor) -> Tensor:
    """Entries at the outermost offsets."""
    return torch.cat([kernel[[0, -1]].flatten(), kernel[:, [0, -1]].flatten()])


def pointwise(
    weight: Float[Tensor, "d_in d_out"], bias: Float[Tensor, " d_out"] | None, grid: tuple[int, int] | None
) -> AffineMap:
    """`f @ W + b` at every position."""
    return AffineMap(carrying_constant(weight, bias)[None, None], grid)


def identity(width: int, grid: tuple[int, int] | None, like: Tensor) -> AffineMap:
    """Every activation as it is."""
    return pointwise(torch.eye(width, dtype=like.dtype, device=like.device), None, grid)


def averaging(width: int, grid: tuple[int, int], window: tuple[int, int], stride: int, like: Tensor) -> AffineMap:
    """The mean over a window, the constant's included."""
    one = identity(width, grid, like).matrix / (window[0] * window[1])
    return AffineMap(one.expand(*window, -1, -1), grid, stride)
