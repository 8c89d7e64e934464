"""Random sections, activations and chains small enough to differentiate one number at a time. All float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.constant import with_constant
from libcore.methods import METHODS
from libcore.sections import (
    AffineSection,
    AttentionSection,
    ConvolutionSection,
    FunctionSection,
    ResidualConvolutionSection,
    ResidualElementwiseSection,
)
from libcore.statistics import LayerStatistics, chain_statistics
from libcore.streams import ActivationStream

AMPLE = 2**24
BUDGETS = (1, 700, 20_000, AMPLE)
"""Memory budgets in bytes: from one example and the smallest block at a time to everything at once."""


def random(generator: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_activation(generator: Generator, n: int, positions: int, d: int) -> Tensor:
    """`[n, positions, d]` of correlated coordinates with means far from zero, the constant coordinate last."""
    activation = random(generator, n, positions, d) @ random(generator, d, d) + 2 * random(generator, d)
    activation[..., -1] = 1.0
    return activation


def random_orthogonal(generator: Generator, d: int) -> Tensor:
    """An orthogonal matrix."""
    return torch.linalg.qr(random(generator, d, d)).Q


def basis_of(to_basis: Tensor | None = None, from_basis: Tensor | None = None) -> Basis:
    """Some basis, whatever the shape of its matrix; the one that is not given is the other's pseudoinverse."""
    if to_basis is None:
        assert from_basis is not None
        to_basis = torch.linalg.pinv(from_basis)
    from_basis = torch.linalg.pinv(to_basis) if from_basis is None else from_basis
    return Basis(to_basis, from_basis, to_basis.new_ones(to_basis.shape[1]), has_constant=False)


def stream_of(activation: Tensor, memory_budget: int = AMPLE) -> ActivationStream:
    """Activations held in memory, as a stream."""
    return ActivationStream(lambda start, stop: activation[start:stop], len(activation), memory_budget)


def keeping_constant(weight: Tensor) -> Tensor:
    """The weight `[d_in, d_out]` with a last column that copies the constant coordinate."""
    weight = weight.clone()
    weight[:, -1] = 0.0
    weight[-1, -1] = 1.0
    return weight


def affine(generator: Generator, d_in: int, d_out: int, constant_out: bool = True) -> AffineSection:
    """A random affine section."""
    weight = random(generator, d_in, d_out)
    return AffineSection(keeping_constant(weight) if constant_out else weight)


def residual_elementwise(
    generator: Generator, d_in: int, d_hidden: int, d_out: int, activation_function: Callable[[Tensor], Tensor]
) -> ResidualElementwiseSection:
    """A random MLP block that keeps the constant coordinate."""
    weight_out = random(generator, d_hidden, d_out)
    weight_out[:, -1] = 0.0
    return ResidualElementwiseSection(
        keeping_constant(random(generator, d_in, d_out)),
        random(generator, d_in, d_hidden),
        weight_out,
        activation_function,
    )


def attention(
    generator: Generator,
    d_in: int,
    d_out: int,
    *,
    query_positions: tuple[int, ...] | None = None,
    causal: bool = True,
    d_value: int = 2,
) -> AttentionSection:
    """A random two-head attention block that keeps the constant coordinate; queries and keys have two coordinates."""
    n_heads, d_head = 2, 2
    w_o = random(generator, n_heads, d_value, d_out)
    w_o[..., -1] = 0.0
    return AttentionSection(
        keeping_constant(random(generator, d_in, d_out)),
        random(generator, n_heads, d_in, d_head) / 2,
        random(generator, n_heads, d_in, d_head) / 2,
        random(generator, n_heads, d_in, d_value),
        w_o,
        query_positions,
        causal,
    )


def convolution(
    generator: Generator, d_in: int, d_out: int, grid: tuple[int, int], window: int, stride: int = 1, padding: int = 0
) -> ConvolutionSection:
    """A random convolution with a square window, no narrower than the grid allows."""
    rows, columns = (min(window, size + 2 * padding) for size in grid)
    return ConvolutionSection(random(generator, rows, columns, d_in, d_out) / window, grid, stride, padding)


def residual_convolution(
    generator: Generator,
    widths: tuple[int, int, int],
    grid: tuple[int, int],
    windows: tuple[tuple[int, int, int], ...],
    activation_function: Callable[[Tensor], Tensor],
) -> ResidualConvolutionSection:
    """A random convolutional block of `d_in`, `d_hidden`, `d_out` coordinates.

    `windows`: size, stride and padding of the first, the second and the residual convolution.
    """
    d_in, d_hidden, d_out = widths
    first = convolution(generator, d_in, d_hidden, grid, *windows[0])
    second = convolution(generator, d_hidden, d_out, first.grid_out, *windows[1])
    residual = convolution(generator, d_in, d_out, grid, *windows[2])
    return ResidualConvolutionSection(residual, first, second, activation_function)


def random_chain(generator: Generator, d: int = 4, n_logits: int = 5) -> Chain:
    """Attention read at two of three positions, an MLP block, logits; the inputs are the first activation itself."""
    return Chain(
        node_layers=("before", "middle", "after", "output"),
        sections=(
            attention(generator, d, d, query_positions=(0, -1)),
            residual_elementwise(generator, d, 6, d, functional.gelu),
            affine(generator, d, n_logits, constant_out=False),
        ),
        embed=lambda inputs: inputs,
        last_has_constant=False,
    )


def largest_difference(value: Tensor, expected: Tensor) -> float:
    """Largest difference of any entry, relative to the largest expected entry."""
    assert value.shape == expected.shape, f"{tuple(value.shape)} instead of {tuple(expected.shape)}"
    return ((value - expected).abs().max() / expected.abs().max()).item()


FITTED = tuple(name for name in METHODS if name != "file")
"""Methods that fit a basis by themselves."""


def layer_statistics(activation: Tensor, memory_budget: int = AMPLE, has_constant: bool = True) -> LayerStatistics:
    """Moments of one node layer with these activations, the first of a chain, or the last where it has no constant."""
    if has_constant:
        chain = Chain(("layer", "output"), (FunctionSection(lambda f: f[..., :1]),), lambda f: f, False)
    else:
        chain = Chain(("input", "layer"), (FunctionSection(lambda f: f[..., :-1]),), with_constant, False)
    return chain_statistics(chain, activation, memory_budget)["layer"]
