"""The convolutional network as sections, batch normalisation folded into the convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from libcore.chain import Chain
from libcore.sections import ConvolutionSection, MaxPoolingSection, ResidualConvolutionSection, Section, compose
from models.vision.cnn import node_layers
from models.vision.images import ImageFormat

Weights = dict[str, Tensor]
Grid = tuple[int, int]

NORM_EPSILON = 1e-5
"""Of `torch.nn.BatchNorm2d`."""


def grids(image_format: ImageFormat, n_stages: int) -> dict[str, Grid]:
    """Rows and columns of every node layer's pixels: each pooling block halves them."""
    sizes: dict[str, Grid] = {}
    grid = (image_format.height, image_format.width)
    for index, layer in enumerate(node_layers(n_stages)[:-1]):
        sizes[layer] = grid
        if index % 2 == 0:
            grid = (grid[0] // 2, grid[1] // 2)
    return sizes | {"output": (1, 1)}


def chain_of(
    weights: Weights,
    image_format: ImageFormat,
    channels: Sequence[int],
    pooling: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Chain:
    """The network between its node layers, in evaluation mode. The folding is done in float64."""
    weights = {name: weight.double() for name, weight in weights.items() if weight.is_floating_point()}
    layers, sizes = node_layers(len(channels)), grids(image_format, len(channels))
    sections: list[Section] = []
    for index, layer in enumerate(layers[:-2]):
        block = pooling_block(weights, layer, sizes[layer], pooling) if index % 2 == 0 else None
        sections.append(block or residual_block(weights, layer, sizes[layer]))
    sections.append(readout(weights, sizes["readout"]))
    return Chain(
        layers,
        tuple(section.to(device=device, dtype=dtype) for section in sections),
        head=lambda images: pixels(images.to(device), dtype),
    )


def pooling_block(weights: Weights, name: str, grid: Grid, pooling: str) -> Section:
    """Convolution, ReLU, pooling. The constant coordinate is pooled like the others."""
    kernel, bias = folded(weights, f"{name}.conv", f"{name}.norm")
    first = convolution(kernel, bias, grid)
    d_in, d_hidden = first.kernel.shape[2:]
    if pooling == "average":
        pool = torch.eye(d_hidden, d_hidden + 1, dtype=kernel.dtype).expand(2, 2, -1, -1) / 4
        constant = constant_only(d_in, d_hidden + 1).expand(2, 2, -1, -1) / 4
        return ResidualConvolutionSection(
            ConvolutionSection(constant, grid, stride=2),
            first,
            ConvolutionSection(pool, grid, stride=2),
            functional.relu,
        )
    unpooled = ResidualConvolutionSection(
        ConvolutionSection(constant_only(d_in, d_hidden + 1)[None, None], grid),
        first,
        ConvolutionSection(torch.eye(d_hidden, d_hidden + 1, dtype=kernel.dtype)[None, None], grid),
        functional.relu,
    )
    return compose((unpooled, MaxPoolingSection(grid, 2)))


def residual_block(weights: Weights, name: str, grid: Grid) -> Section:
    """The residual stream as it is, beside two convolutions with a ReLU between them."""
    first = convolution(*folded(weights, f"{name}.conv1", f"{name}.norm1"), grid)
    kernel, bias = folded(weights, f"{name}.conv2", f"{name}.norm2")
    d = len(bias)
    residual = torch.eye(d + 1, dtype=bias.dtype)
    residual[-1, :-1] = bias
    second = functional.pad(kernel, (0, 1))
    return ResidualConvolutionSection(
        ConvolutionSection(residual[None, None], grid),
        first,
        ConvolutionSection(second, grid, padding=1),
        functional.relu,
    )


def readout(weights: Weights, grid: Grid) -> Section:
    """ReLU of every pixel, their mean, and the logits, which carry no constant coordinate."""
    weight, bias = weights["readout.weight"].T, weights["readout.bias"]
    d, n_pixels = len(weight), grid[0] * grid[1]
    onto_logits = torch.cat([torch.zeros_like(weight), bias[None]]) / n_pixels
    return ResidualConvolutionSection(
        ConvolutionSection(onto_logits.expand(*grid, -1, -1), grid, stride=grid[0]),
        ConvolutionSection(torch.eye(d + 1, d, dtype=weight.dtype)[None, None], grid),
        ConvolutionSection((weight / n_pixels).expand(*grid, -1, -1), grid, stride=grid[0]),
        functional.relu,
    )


def folded(
    weights: Weights, conv: str, norm: str
) -> tuple[Float[Tensor, "rows columns d_in d_out"], Float[Tensor, " d_out"]]:
    """Kernel and bias of a convolution followed by its batch normalisation with running moments."""
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
    kernel = weights[f"{conv}.weight"].permute(2, 3, 1, 0) * scale
    return kernel, weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale


def convolution(
    kernel: Float[Tensor, "3 3 d_in d_out"], bias: Float[Tensor, " d_out"], grid: Grid
) -> ConvolutionSection:
    """Same-size convolution of an activation with constant coordinate; the bias is read at the pixel itself."""
    with_constant = functional.pad(kernel, (0, 0, 0, 1))
    with_constant[1, 1, -1] = bias
    return ConvolutionSection(with_constant, grid, padding=1)


def constant_only(d_in: int, d_out: int) -> Float[Tensor, "d_in_with_constant d_out"]:
    """The constant coordinate carried over, nothing else."""
    weight = torch.zeros(d_in, d_out, dtype=torch.float64)
    weight[-1, -1] = 1.0
    return weight


def pixels(images: UInt8[Tensor, "batch channel height width"], dtype: torch.dtype) -> Float[Tensor, "batch pixel d"]:
    """Channels in [0, 1] and the constant coordinate, one position per pixel."""
    return functional.pad(images.flatten(2).transpose(1, 2).to(dtype).div_(255), (0, 1), value=1.0)
