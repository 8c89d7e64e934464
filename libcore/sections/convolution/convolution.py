"""Convolution: the affine section whose positions are pixels (METHOD.md 1, 5).

Positions are the pixels of a grid in row-major order, and all of them share one basis over channels. Zero padding pads
the constant coordinate too, so a bias belongs in the kernel at an offset that lies in the image at every output pixel.
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from libcore import processes
from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.base import MaskedEvaluation, Section, columns
from libcore.sections.convolution.kernel_overlap import Window
from libcore.sections.convolution.operations import ConvolutionShape
from libcore.sections.operations import Operations
from libcore.streams import ActivationStream, float64_zeros


class ConvolutionSection(Section):
    """`f -> g` with `g_t = sum_o f_{stride t + o - padding} @ kernel[o]`, offsets `o` over the kernel's window.

    Also average pooling (equal multiples of the identity at every offset) and pointwise maps (a window of one pixel).

    Args:
        kernel: `[rows, columns, d_in, d_out]`.
        grid: rows and columns of the input's pixels.
        stride: pixels of the input from one output pixel to the next.
        padding: pixels of zeros around the input.

    Raises ValueError if the window does not fit into the padded grid.
    """

    def __init__(
        self,
        kernel: Float[Tensor, "rows columns d_in d_out"],
        grid: tuple[int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        self.kernel = kernel
        self.grid = grid
        self.stride = stride
        self.padding = padding
        if min(self.grid_out) < 1:
            raise ValueError(
                f"a window of {tuple(kernel.shape[:2])} pixels on a grid of {grid} padded by {padding}; "
                "expected one no larger than the padded grid"
            )

    @property
    def windows(self) -> tuple[Window, Window]:
        """How the kernel moves along rows and along columns."""
        rows, columns = self.kernel.shape[:2]
        return (
            Window(rows, self.stride, self.padding, self.grid[0]),
            Window(columns, self.stride, self.padding, self.grid[1]),
        )

    @property
    def grid_out(self) -> tuple[int, int]:
        """Rows and columns of the output's pixels."""
        rows, columns = self.windows
        return rows.size_out, columns.size_out

    def __call__(self, activation: Float[Tensor, "batch position d_in"]) -> Float[Tensor, "batch position_out d_out"]:
        if self.kernel.shape[:2] == (1, 1) and self.stride == 1 and self.padding == 0:
            return activation @ self.kernel[0, 0]
        pixels = activation.unflatten(1, self.grid).permute(0, 3, 1, 2)
        output = functional.conv2d(pixels, self.kernel.permute(3, 2, 0, 1), stride=self.stride, padding=self.padding)
        return output.permute(0, 2, 3, 1).flatten(1, 2)

    def forward_values(self, example: Float[Tensor, "1 position d_in"]) -> int:
        # In float64 PyTorch's convolution on a CPU lays out every window's pixels side by side.
        rows, columns, d_in, d_out = self.kernel.shape
        pixels_out = self.grid_out[0] * self.grid_out[1]
        return 2 * example.numel() + pixels_out * (rows * columns * d_in + 2 * d_out)

    def forward_operations(self, example: Float[Tensor, "1 position d_in"]) -> int:
        return self.shape.forward()

    @property
    def shape(self) -> ConvolutionShape:
        """What its operations depend on."""
        rows, columns, d_in, d_out = self.kernel.shape
        return ConvolutionShape(self.grid_out[0] * self.grid_out[1], rows * columns, d_in, d_out)

    def gram_operations(self, example: Tensor, n_out: int, n_points: int) -> Operations:
        return self.shape.gram(n_out)

    def gram_memory(self, example: Tensor, n_out: int, n_points: int) -> tuple[int, int]:
        d_in = self.kernel.shape[2]
        return 0, d_in * (d_in + n_out)

    def edge_operations(
        self, example: Tensor, n_in: int, n_out: int, n_points: int, n_examples: int, memory_budget: int
    ) -> Operations:
        return self.shape.edges(example.shape[1], n_in, n_out)

    def edge_memory(self, example: Tensor, n_in: int, n_out: int, n_points: int) -> tuple[int, int]:
        offsets, pixels = self.kernel.shape[0] * self.kernel.shape[1], self.grid_out[0] * self.grid_out[1]
        return 2 * example.shape[1] * n_in + pixels * n_in * (2 * offsets + 3 * n_out), offsets * n_in * n_out

    def between(self, reads: Float[Tensor, "from d_in"], writes: Float[Tensor, "d_out to"]) -> ConvolutionSection:
        """The same map between other coordinates: `reads` before it, `writes` after it."""
        return ConvolutionSection(reads @ self.kernel @ writes, self.grid, self.stride, self.padding)

    def in_bases(self, basis: Basis, next_basis: Basis) -> ConvolutionSection:
        """The same map from features to features."""
        return self.between(basis.from_basis, next_basis.to_basis)

    def pixels_read(self) -> Int[Tensor, "position_out offset"]:
        """Which input pixel each output pixel reads at each offset; the number of input pixels stands for padding."""
        rows, columns = (window.reads() for window in self.windows)
        inside = ((rows >= 0)[:, None, :, None] & (columns >= 0)[None, :, None, :]).flatten(2).flatten(0, 1)
        pixel = (rows[:, None, :, None] * self.grid[1] + columns[None, :, None, :]).flatten(2).flatten(0, 1)
        return torch.where(inside, pixel, self.grid[0] * self.grid[1]).to(self.kernel.device)

    def contributions(
        self, activation: Float[Tensor, "batch position d_in"]
    ) -> Float[Tensor, "d_in batch position_out d_out"]:
        """What each input coordinate contributes to each output coordinate; their sum over `d_in` is the output."""
        padded = functional.pad(activation, (0, 0, 0, 1))
        read = padded[:, self.pixels_read()]  # [batch, position_out, offset, d_in]
        by_input = read.permute(3, 0, 1, 2).flatten(1, 2)
        return torch.bmm(by_input, self.kernel.flatten(0, 1).transpose(0, 1)).unflatten(1, read.shape[:2])

    def closed_form_jacobian_gram(
        self, stream: ActivationStream, next_basis: Basis, quadrature: Quadrature
    ) -> Float[Tensor, "d_in d_in"]:
        """`1/P_in sum_o n_o K_o P K_o^T`, offset `o` lying in the image at `n_o` output pixels: no data is needed."""
        rows, columns = (window.counts() for window in self.windows)
        gram = float64_zeros(*self.kernel.shape[2:3] * 2, like=self.kernel)
        for row, column in product(range(len(rows)), range(len(columns))):
            jacobian = (self.kernel[row, column] @ next_basis.to_basis).double()
            gram += rows[row] * columns[column] * (jacobian @ jacobian.T)
        return gram / (self.grid[0] * self.grid[1])

    def closed_form_edges(
        self,
        stream: ActivationStream,
        basis: Basis,
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """`A_{t,i,j} = sum_o fhat_{s(t,o),j} Khat_o[j,i]`, constant along the path."""
        in_features = self.in_bases(basis, next_basis)
        square_sum = float64_zeros(*in_features.kernel.shape[2:], like=basis.to_basis)
        for _, activation in stream.own_chunks(in_features.values_per_example()):
            attribution = in_features.contributions(basis.features(activation))
            square_sum += attribution.double().square().sum((1, 2))
        n_samples = stream.n_examples * stream.example().shape[1]
        return processes.summed(square_sum).T / n_samples

    def values_per_example(self) -> int:
        """Numbers alive per example in `contributions`, its result and the result's square included."""
        rows, columns, d_in, d_out = self.kernel.shape
        pixels_out = self.grid_out[0] * self.grid_out[1]
        return 2 * self.grid[0] * self.grid[1] * d_in + pixels_out * d_in * (2 * rows * columns + 3 * d_out)

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        basis: Basis,
        next_basis: Basis,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """One convolution a mask: masking an input is masking an entry of the interaction at every offset."""
        in_features = self.in_bases(basis, next_basis)
        return lambda mask, outputs=None: in_features.masked(mask, outputs)(features)

    def masked(self, mask: Tensor, outputs: Tensor | None) -> ConvolutionSection:
        """The same map to the chosen output coordinates, number `i` of them reading the inputs `mask[i]` alone."""
        return ConvolutionSection(columns(self.kernel, outputs) * mask.T, self.grid, self.stride, self.padding)


class MaxPoolingSection(Section):
    """The largest value in every window of `size × size` pixels, each coordinate by itself; differentiated."""

    def __init__(self, grid: tuple[int, int], size: int) -> None:
        self.grid = grid
        self.size = size

    def __call__(self, activation: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch position_out d"]:
        pixels = activation.unflatten(1, self.grid).permute(0, 3, 1, 2)
        return functional.max_pool2d(pixels, self.size).permute(0, 2, 3, 1).flatten(1, 2)
