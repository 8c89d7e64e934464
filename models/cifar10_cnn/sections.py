"""The convolutional network as sections, batch normalisation folded into the convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from libcore.chain import Chain
from libcore.constant import beside_constant, carrying_constant, constant_alone, folded, with_constant
from libcore.sections import ConvolutionSection, MaxPoolingSection, ResidualConvolutionSection, Section, compose
from models.cifar10_cnn.network import node_layers
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
        embed=lambda images: pixels(images.to(device), dtype),
        last_has_constant=False,
    )


def pooling_block(weights: Weights, name: str, grid: Grid, pooling: str) -> Section:
    """Convolution, ReLU, pooling. The constant coordinate is pooled like the others."""
    kernel, bias = without_norm(weights, f"{name}.conv", f"{name}.norm")
    first = convolution(kernel, bias, grid)
    d_in, d_hidden = first.kernel.shape[2:]
    if pooling == "average":
        pool = torch.eye(d_hidden, d_hidden + 1, dtype=kernel.dtype).expand(2, 2, -1, -1) / 4
        constant = constant_alone(d_in - 1, d_hidden).expand(2, 2, -1, -1) / 4
        return ResidualConvolutionSection(
            ConvolutionSection(constant, grid, stride=2),
            first,
            ConvolutionSection(pool, grid, stride=2),
            functional.relu,
        )
    unpooled = ResidualConvolutionSection(
        ConvolutionSection(constant_alone(d_in - 1, d_hidden)[None, None], grid),
        first,
        ConvolutionSection(torch.eye(d_hidden, d_hidden + 1, dtype=kernel.dtype)[None, None], grid),
        functional.relu,
    )
    return compose((unpooled, MaxPoolingSection(grid, 2)))


def residual_block(weights: Weights, name: str, grid: Grid) -> Section:
    """The residual stream as it is, beside two convolutions with a ReLU between them."""
    first = convolution(*without_norm(weights, f"{name}.conv1", f"{name}.norm1"), grid)
    kernel, bias = without_norm(weights, f"{name}.conv2", f"{name}.norm2")
    d = len(bias)
    residual = carrying_constant(torch.eye(d, dtype=bias.dtype), bias)
    second = beside_constant(kernel)
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
    onto_logits = folded(torch.zeros_like(weight), bias) / n_pixels
    return ResidualConvolutionSection(
        ConvolutionSection(onto_logits.expand(*grid, -1, -1), grid, stride=grid[0]),
        ConvolutionSection(torch.eye(d + 1, d, dtype=weight.dtype)[None, None], grid),
        ConvolutionSection((weight / n_pixels).expand(*grid, -1, -1), grid, stride=grid[0]),
        functional.relu,
    )


def without_norm(
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
    reading = functional.pad(kernel, (0, 0, 0, 1))
    reading[1, 1, -1] = bias
    return ConvolutionSection(reading, grid, padding=1)


def pixels(images: UInt8[Tensor, "batch channel height width"], dtype: torch.dtype) -> Float[Tensor, "batch pixel d"]:
    """Channels in [0, 1] and the constant coordinate, one position per pixel."""
    return with_constant(images.flatten(2).transpose(1, 2).to(dtype).div_(255))
