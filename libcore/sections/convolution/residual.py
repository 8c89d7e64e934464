"""Residual convolution section `f @ R + φ(f @ K) @ V`, each product a convolution (METHOD.md 5).

Convolution, elementwise nonlinearity, then an affine map: a second convolution, pooling or the plain channels. Its
Jacobian from output pixel `t` to input pixel `s` is

    d fhat_t / d f_s = R_r C + sum_{m, o, a} K_o diag(d_m) V_a C,    r, o, a the offsets that lead from t to s over m,

with `d_m = φ'(u_m)` at the hidden pixels `m`. Squared and summed over `s`, `t` and data, it needs the Grams
`D_Δ = E[d_m^T d_{m+Δ}]` of hidden pixels that share an input and an output pixel, one for each displacement `Δ` and
class of pixels as the borders make them (`kernel_overlap.py`); the number of output features costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.parallel import map_shares
from libcore.quadrature import Quadrature
from libcore.sections.base import MaskedEvaluation, Section
from libcore.sections.convolution.convolution import ConvolutionSection
from libcore.sections.convolution.kernel_overlap import Overlap, overlaps, pixel_classes
from libcore.sections.convolution.masked import masked_hidden_evaluation
from libcore.sections.convolution.operations import ConvolutionShape, Overlapping, residual_edges, residual_gram
from libcore.sections.operations import Operations
from libcore.sections.positionwise.elementwise import path_derivative
from libcore.streams import ActivationStream, float64_zeros

Overlap2d = tuple[Overlap, Overlap]

BYTES_IN_CACHE = 2**26
"""Working set of a chunk on a CPU; a quarter of it takes a fifth longer."""


class ResidualConvolutionSection(Section):
    """`f -> residual(f) + second(activation_function(first(f)))`.

    Args:
        residual: carries the residual stream, the output bias and the constant coordinate.
        first: from the input to the hidden pixels, input bias included.
        second: from the hidden pixels (which have no constant coordinate) to the output.
        activation_function: differentiable, elementwise.

    Raises ValueError if the grids do not fit together, or if `residual` moves over the input in other steps than
    `second` after `first`.
    """

    def __init__(
        self,
        residual: ConvolutionSection,
        first: ConvolutionSection,
        second: ConvolutionSection,
        activation_function: Callable[[Tensor], Tensor],
    ) -> None:
        self.residual = residual
        self.first = first
        self.second = second
        self.activation_function = activation_function
        if first.grid_out != second.grid or residual.grid != first.grid or residual.grid_out != second.grid_out:
            raise ValueError(
                f"grids {first.grid} -> {first.grid_out}, {second.grid} -> {second.grid_out} beside "
                f"{residual.grid} -> {residual.grid_out}; expected those of one path beside the other"
            )
        if residual.stride != first.stride * second.stride and second.grid_out != (1, 1):
            raise ValueError(f"residual stride {residual.stride}; expected {first.stride * second.stride}")

    def __call__(self, activation: Float[Tensor, "batch position d_in"]) -> Float[Tensor, "batch position_out d_out"]:
        return self.residual(activation) + self.second(self.activation_function(self.first(activation)))

    def forward_values(self, example: Float[Tensor, "1 position d_in"]) -> int:
        hidden = self.first(example)
        return 2 * hidden.numel() + max(
            self.first.forward_values(example),
            self.second.forward_values(hidden),
            self.residual.forward_values(example),
        )

    def forward_operations(self, example: Float[Tensor, "1 position d_in"]) -> int:
        return sum(shape.forward() for shape in self._shapes)

    @property
    def _shapes(self) -> tuple[ConvolutionShape, ConvolutionShape, ConvolutionShape]:
        return self.first.shape, self.second.shape, self.residual.shape

    def gram_operations(self, example: Tensor, n_out: int, n_points: int) -> Operations:
        overlaps = [
            Overlapping(*(len(of_row) * len(of_column) for of_row, of_column in sides))
            for row, column in self._overlaps()
            for sides in [((row.pixels, column.pixels), (row.first, column.first), (row.second, column.second))]
        ]
        return residual_gram(*self._shapes, overlaps, n_out)

    def gram_memory(self, example: Tensor, n_out: int, n_points: int) -> tuple[int, int]:
        return self._values_per_example(), (len(self._overlaps()) + 2) * self.second.kernel.shape[2] ** 2

    def edge_operations(
        self, example: Tensor, n_in: int, n_out: int, n_points: int, n_examples: int, memory_budget: int
    ) -> Operations:
        return residual_edges(*self._shapes, example.shape[1], n_in, n_out)

    def edge_memory(self, example: Tensor, n_in: int, n_out: int, n_points: int) -> tuple[int, int]:
        hidden, (rows, columns) = self.second.kernel.shape[2], self.second.kernel.shape[:2]
        pixels_out = self.second.grid_out[0] * self.second.grid_out[1]
        attributions = n_in * pixels_out * (rows * columns * hidden + 2 * n_out)
        first = self.first.edge_memory(example, n_in, hidden, n_points)
        residual = self.residual.edge_memory(example, n_in, n_out, n_points)
        weights = first[1] + residual[1] + rows * columns * hidden * n_out
        return self._values_per_example() + first[0] + residual[0] + attributions, weights

    def path_derivative(
        self, activation: Float[Tensor, "batch position d_in"], quadrature: Quadrature
    ) -> Float[Tensor, "batch hidden_position d_hidden"]:
        """`sum_q w_q φ'(α_q u_m)`: the derivative averaged along the path from zero."""
        return path_derivative(self.first(activation), self.activation_function, quadrature)

    def closed_form_jacobian_gram(
        self, stream: ActivationStream, next_basis: Basis, quadrature: Quadrature
    ) -> Float[Tensor, "d_in d_in"]:
        """METHOD.md eq. 4 as in the module's docstring: one forward pass, and Grams of `d` per displacement."""
        pairs = self._overlaps()
        derivative_sum, derivative_grams, n = self._derivative_moments(stream, quadrature, pairs)
        second = (self.second.kernel @ next_basis.to_basis).double()
        first, residual = self.first.kernel.double(), (self.residual.kernel @ next_basis.to_basis).double()
        hidden = float64_zeros(*first.shape[2:3] * 2, like=first)
        for pair, derivative_gram in zip(pairs, derivative_grams, strict=True):
            hidden += hidden_term(pair, derivative_gram, first, second)
        cross = self._cross_term(derivative_sum, first, second, residual)
        linear = self.residual.closed_form_jacobian_gram(stream, next_basis, quadrature)
        return linear + (hidden + cross + cross.T) / (n * self.first.grid[0] * self.first.grid[1])

    def _overlaps(self) -> list[Overlap2d]:
        """Displacements and classes of hidden pixels, rows times columns."""
        along_rows, along_columns = (
            overlaps(*windows) for windows in zip(self.first.windows, self.second.windows, strict=True)
        )
        return list(product(along_rows, along_columns))

    def _derivative_moments(
        self, stream: ActivationStream, quadrature: Quadrature, pairs: list[Overlap2d]
    ) -> tuple[Float[Tensor, "row column d_hidden"], list[Float[Tensor, "d_hidden d_hidden"]], int]:
        """Sums over data: `d_m` of every hidden pixel, `d_m^T d_{m+Δ}` of every overlap; and the number of examples."""
        d_hidden = self.second.kernel.shape[2]

        def moments_of(chunks: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
            total = float64_zeros(*self.second.grid, d_hidden, like=self.second.kernel)
            grams = float64_zeros(len(pairs), d_hidden, d_hidden, like=self.second.kernel)
            for activation in chunks:
                derivative = self.path_derivative(activation, quadrature).double().unflatten(1, self.second.grid)
                total += derivative.sum(0)
                for (rows, columns), gram in zip(pairs, grams, strict=True):
                    here = pixels_of(derivative, rows, columns, (0, 0))
                    there = pixels_of(derivative, rows, columns, (rows.displacement, columns.displacement))
                    gram.addmm_(here.T, there)
            return total, grams

        shares = map_shares(stream, self._values_per_example(), BYTES_IN_CACHE, moments_of)
        total, grams = (torch.stack(moments).sum(0) for moments in zip(*shares, strict=True))
        return total, list(grams), stream.n_examples

    def _cross_term(
        self,
        derivative_sum: Float[Tensor, "row column d_hidden"],
        first: Float[Tensor, "rows_first columns_first d_in d_hidden"],
        second: Float[Tensor, "rows_second columns_second d_hidden feature_out"],
        residual: Float[Tensor, "rows_residual columns_residual d_in feature_out"],
    ) -> Float[Tensor, "d_in d_in"]:
        """`sum K_o diag(sum d_m) V_a R_r^T` over all `m`, `o`, `a` for which offset `r` of the residual path leads from
        the same output to the same input pixel."""
        term = float64_zeros(*first.shape[2:3] * 2, like=first)
        classes = [pixel_classes(*windows) for windows in zip(self.first.windows, self.second.windows, strict=True)]
        for rows, columns in product(*classes):
            scale = derivative_sum[list(rows.pixels)][:, list(columns.pixels)].sum((0, 1))
            for o, a in product(product(rows.first, columns.first), product(rows.second, columns.second)):
                r = tuple(
                    self.first.stride * (of_second - self.second.padding)
                    + of_first
                    - self.first.padding
                    + self.residual.padding
                    for of_first, of_second in zip(o, a, strict=True)
                )
                if all(0 <= offset < size for offset, size in zip(r, residual.shape[:2], strict=True)):
                    term += (first[o] * scale) @ (second[a] @ residual[r].T)
        return term

    def closed_form_edges(
        self,
        stream: ActivationStream,
        basis: Basis,
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """`A_{t,i,j}`: what feature `j` contributes to the hidden pixels, times `d`, through the second convolution."""
        residual, first, second = self._in_bases(basis, next_basis)
        n_pixels = self.first.grid[0] * self.first.grid[1]

        def square_sum_of(chunks: Iterator[Tensor]) -> Tensor:
            square_sum = float64_zeros(*residual.kernel.shape[2:], like=basis.to_basis)
            for activation in chunks:
                features = basis.features(activation)
                derivative = self.path_derivative(basis.activation(features), quadrature)
                through_hidden = first.contributions(features).mul_(derivative)
                attribution = second(through_hidden.flatten(0, 1)).unflatten(0, through_hidden.shape[:2])
                attribution = attribution + residual.contributions(features)
                square_sum += attribution.square_().sum((1, 2), dtype=torch.float64)
            return square_sum

        values = self._edge_values_per_example(first, residual, second)
        shares = map_shares(stream, values, BYTES_IN_CACHE, square_sum_of)
        return torch.stack(shares).sum(0).T / (stream.n_examples * n_pixels)

    def _in_bases(
        self, basis: Basis, next_basis: Basis
    ) -> tuple[ConvolutionSection, ConvolutionSection, ConvolutionSection]:
        """Residual, first and second convolution from features to features, the hidden coordinates as they are."""
        hidden = torch.eye(self.second.kernel.shape[2]).to(basis.from_basis)
        return (
            self.residual.in_bases(basis, next_basis),
            self.first.between(basis.from_basis, hidden),
            self.second.between(hidden, next_basis.to_basis),
        )

    def _values_per_example(self) -> int:
        """Numbers alive per example in `_derivative_moments`."""
        pixels, hidden_pixels = (rows * columns for rows, columns in (self.first.grid, self.second.grid))
        rows, columns, d_in, d_hidden = self.first.kernel.shape
        return 2 * pixels * d_in + hidden_pixels * (rows * columns * d_in + 7 * d_hidden)

    def _edge_values_per_example(
        self, first: ConvolutionSection, residual: ConvolutionSection, second: ConvolutionSection
    ) -> int:
        """Numbers alive per example in `closed_form_edges`."""
        rows, columns, d_hidden, n_out = second.kernel.shape
        pixels_out = second.grid_out[0] * second.grid_out[1]
        attributions = first.kernel.shape[2] * pixels_out * (rows * columns * d_hidden + 2 * n_out)
        return self._values_per_example() + sum(
            (first.values_per_example(), residual.values_per_example(), attributions)
        )

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        basis: Basis,
        next_basis: Basis,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """The linear part is one convolution; the hidden pixels are mixed anew for every output feature's mask."""
        residual, first, second = self._in_bases(basis, next_basis)
        through_hidden = masked_hidden_evaluation(first, second, self.activation_function, features, memory_budget)
        return lambda mask, outputs=None: residual.masked(mask, outputs)(features) + through_hidden(mask, outputs)


def pixels_of(
    derivative: Float[Tensor, "batch row column d"], rows: Overlap, columns: Overlap, shift: tuple[int, int]
) -> Float[Tensor, "pixel d"]:
    """The overlap's pixels of all examples, moved by `shift`."""
    chosen_rows = torch.tensor(rows.pixels, device=derivative.device) + shift[0]
    chosen_columns = torch.tensor(columns.pixels, device=derivative.device) + shift[1]
    return derivative[:, chosen_rows[:, None], chosen_columns].flatten(0, 2)


def hidden_term(
    pair: Overlap2d,
    derivative_gram: Float[Tensor, "d_hidden d_hidden"],
    first: Float[Tensor, "rows_first columns_first d_in d_hidden"],
    second: Float[Tensor, "rows_second columns_second d_hidden feature_out"],
) -> Float[Tensor, "d_in d_in"]:
    """`sum_o K_o [ (sum_a V_a V_{a+Δ}^T) ∘ D_Δ ] K_{o'}^T`, where `o'` reads at `m + Δ` what `o` reads at `m`."""
    rows, columns = pair
    here, there = offsets_of(second, rows.second, columns.second)
    mixed = torch.einsum("acf,adf->cd", here, there) * derivative_gram
    here, there = offsets_of(first, rows.first, columns.first)
    return torch.einsum("aic,ajc->ij", here @ mixed, there)


def offsets_of(
    kernel: Float[Tensor, "row_offset column_offset d_in d_out"],
    rows: tuple[tuple[int, int], ...],
    columns: tuple[tuple[int, int], ...],
) -> tuple[Float[Tensor, "pair d_in d_out"], Float[Tensor, "pair d_in d_out"]]:
    """The kernel at both offsets of every pair, rows times columns."""
    pairs = list(product(rows, columns))
    here, there = (kernel[[row[side] for row, _ in pairs], [column[side] for _, column in pairs]] for side in (0, 1))
    return here, there
