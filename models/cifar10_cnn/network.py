"""A small convolutional network of pooling and residual blocks, each of which is one section."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vision.images import ImageFormat

POOLINGS: dict[str, type[nn.Module]] = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class PoolingBlock(nn.Module):
    """`pool(relu(norm(conv(x))))`: more channels, half the height and width."""

    def __init__(self, channels_in: int, channels_out: int, pooling: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.pool = POOLINGS[pooling](2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(functional.relu(self.norm(self.conv(x))))


class ResidualBlock(nn.Module):
    """`x + norm2(conv2(relu(norm1(conv1(x)))))`: the residual stream beside it is linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))


class Cnn(nn.Module):
    """One pooling and one residual block for each number of channels, then the mean over pixels of ReLU, read linearly.

    Reads pixels in [0, 1].
    """

    def __init__(self, image_format: ImageFormat, channels: Sequence[int], pooling: str) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for channels_in, channels_out in zip((image_format.channels, *channels), channels, strict=False):
            blocks += [PoolingBlock(channels_in, channels_out, pooling), ResidualBlock(channels_out)]
        self.blocks = nn.ModuleList(blocks)
        self.readout = nn.Linear(channels[-1], image_format.n_classes)

    def forward(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch logit"]:
        x = pixels.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return self.readout(functional.relu(x).mean((2, 3)))


def node_layers(n_stages: int) -> tuple[str, ...]:
    """`blocks.i` is the activation that block `i` reads, `blocks.0` the image itself."""
    return (*(f"blocks.{index}" for index in range(2 * n_stages)), "readout", "output")
