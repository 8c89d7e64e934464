"""What an image data set is: labelled images in two splits, and the sizes that are known before anything is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


class DatasetError(ValueError):
    """A data set that is missing, damaged or unknown; the message is one line for the user."""


@dataclass(frozen=True)
class LabelledImages:
    """Images in 0 … 255 and the number of each one's class."""

    images: UInt8[Tensor, "example channel height width"]
    labels: Int64[Tensor, " example"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabelledImages:
        """A copy on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


Splits = tuple[LabelledImages, LabelledImages]
"""Training and test split."""


@dataclass(frozen=True)
class ImageDataset:
    """A whole data set; `class_names[label]` says what an image shows."""

    name: str
    class_names: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages


@dataclass(frozen=True)
class ImageFormat:
    """Sizes of a data set, in pixels and examples."""

    channels: int
    height: int
    width: int
    n_classes: int
    n_train: int
    n_test: int

    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width


FORMATS: dict[str, ImageFormat] = {
    "cifar10": ImageFormat(channels=3, height=32, width=32, n_classes=10, n_train=50_000, n_test=10_000),
    "digits": ImageFormat(channels=1, height=8, width=8, n_classes=10, n_train=1_437, n_test=360),
}
"""The data sets there are."""
