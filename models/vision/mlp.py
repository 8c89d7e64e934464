"""Fully connected ReLU network on images: the paper's CIFAR-10 model, and its chain of sections."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from libcore.chain import Chain
from libcore.constant import beside_constant, constant_alone, folded
from libcore.integers import ScaledIntegers
from libcore.sections import AffineSection, ResidualElementwiseSection, Section
from models.vision.images import ImageFormat

Weights = dict[str, Tensor]


class Linear(nn.Module):
    """`x @ W + b`, the weight stored `[d_in, d_out]`."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        bound = d_in**-0.5
        self.W = nn.Parameter(torch.empty(d_in, d_out).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.empty(d_out).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_out"]:
        return x @ self.W + self.b


class Mlp(nn.Module):
    """Linear layers with ReLU between them; reads pixels in [0, 1], channels first, flattened."""

    def __init__(self, image_format: ImageFormat, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        widths = (input_width(image_format), *hidden_sizes, image_format.n_classes)
        self.layers = nn.ModuleList(Linear(d_in, d_out) for d_in, d_out in pairwise(widths))

    def forward(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch logit"]:
        x = pixels.flatten(1)
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


def input_width(image_format: ImageFormat) -> int:
    """Pixels times channels."""
    return image_format.channels * image_format.height * image_format.width


def node_layers(n_hidden: int) -> tuple[str, ...]:
    """`layers.i` is the activation that layer `i` reads, `layers.0` the image itself."""
    return (*(f"layers.{index}" for index in range(n_hidden + 1)), "output")


def chain_of(weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
    """The network as sections: `relu(f @ [[W], [b]])` with the constant beside it for each layer but the last."""
    n_layers = len(weights) // 2
    reading = [folded(weights[f"layers.{index}.W"], weights[f"layers.{index}.b"]) for index in range(n_layers)]
    sections: list[Section] = [relu_layer(weight) for weight in reading[:-1]]
    sections.append(AffineSection(reading[-1]))
    return Chain(
        node_layers(n_layers - 1),
        tuple(section.to(device=device, dtype=dtype) for section in sections),
        embed=ScaledIntegers(255, dtype, device),
        last_has_constant=False,
    )


def relu_layer(weight: Float[Tensor, "d_in d_hidden"]) -> ResidualElementwiseSection:
    """`f -> [relu(f @ weight), 1]`: the hidden neurons as they are, and the constant coordinate carried over."""
    d_in, d_hidden = weight.shape
    constant = constant_alone(d_in - 1, d_hidden, like=weight)
    return ResidualElementwiseSection(constant, weight, beside_constant(torch.eye(d_hidden)), functional.relu)
