"""Pictures of features for tests: every image one colour of its own, so that it can be found again on the page."""

from __future__ import annotations

import torch
from torch import Tensor

from models.analysed import ExampleImage, FeaturePicture

Box = tuple[int, int, int, int]


def plain_image(red: int, green: int, blue: int, rows: int = 8, columns: int = 8) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.uint8).expand(rows, columns, 3)


def colour_of(feature: int, number: int) -> tuple[int, int, int]:
    """Different for every image of every feature."""
    return 10 + 20 * feature, 20 + 14 * number, 200 - 10 * number


def plain_picture(
    feature: int, n: int = 3, caption: str = "7", box: Box | None = None, direction: bool = False, value: float = 10.0
) -> FeaturePicture:
    """Values are 10, 9, … tenths of `value`, those of the lowest, which are numbered after the highest, negative."""

    def examples(sign: int) -> tuple[ExampleImage, ...]:
        first = 0 if sign > 0 else n
        return tuple(
            ExampleImage(plain_image(*colour_of(feature, first + i)), sign * value * (1 - i / 10), caption, box)
            for i in range(n)
        )

    return FeaturePicture(examples(1), examples(-1), plain_image(255, 0, feature) if direction else None)


CONSTANT_PICTURE = FeaturePicture((), (), None)
