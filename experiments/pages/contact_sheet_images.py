"""Pictures of features as an HTML page embeds them: one strip of thumbnails per feature, as a data URI."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from models.analysed import ExampleImage, FeaturePicture

LARGEST_THUMBNAIL = 32
"""Pixels; larger images are made smaller, lest a page of many features take long to load."""
LARGEST_PNG = 8 * 2**10
"""Bytes; a strip that takes more becomes a JPEG, whose losses cannot be seen at a sixth of the size.

With both limits a page of 256 features with 17 photographs each stays under 4 MB."""
JPEG_QUALITY = 90

Embedded = dict[str, object]


def embedded_picture(picture: FeaturePicture) -> Embedded:
    """What the page needs to show one feature's contact sheet.

    Returns:
        `strip`: the thumbnails side by side, the highest, then the lowest, then the direction; `aspect`: width of a
        thumbnail by its height; `highest`, `lowest`: what is known of each; `direction`: whether there is one.

    Raises ValueError if the images differ in size or there is none.
    """
    examples = [*picture.highest, *picture.lowest]
    images = [example.image for example in examples]
    sizes = sorted({tuple(image.shape[:2]) for image in images})
    if len(sizes) > 1:
        raise ValueError(f"images of {sizes} rows and columns on one contact sheet; expected all of one size")
    if picture.direction is not None:
        images.append(picture.direction)
    if not images:
        raise ValueError("a contact sheet without images; expected at least one, or the feature itself")
    rows, columns = images[0].shape[:2]
    return {
        "strip": strip_of(images, thumbnail_size(rows, columns)),
        "aspect": columns / rows,
        "highest": [embedded_example(example) for example in picture.highest],
        "lowest": [embedded_example(example) for example in picture.lowest],
        "direction": picture.direction is not None,
    }


def embedded_example(example: ExampleImage) -> Embedded:
    """What is shown, the activation to four digits, and the position's left, top, width and height in percent."""
    box = None
    if example.box is not None:
        rows, columns = example.image.shape[:2]
        top, left, bottom, right = example.box
        parts = (left / columns, top / rows, (right - left) / columns, (bottom - top) / rows)
        box = [round(100 * part, 2) for part in parts]
    return {"caption": example.caption, "value": float(f"{example.value:.4g}"), "box": box}


def thumbnail_size(rows: int, columns: int) -> tuple[int, int]:
    """Width and height of an image that is not too large, its shape kept."""
    scale = min(1.0, LARGEST_THUMBNAIL / max(rows, columns))
    return max(1, round(scale * columns)), max(1, round(scale * rows))


def strip_of(images: list[UInt8[Tensor, "_ _ 3"]], size: tuple[int, int]) -> str:
    """The images side by side, each scaled to `size`."""
    strip = Image.new("RGB", (size[0] * len(images), size[1]))
    for index, image in enumerate(images):
        thumbnail = Image.fromarray(np.ascontiguousarray(image.cpu()))
        # What is enlarged keeps its pixels; what is made smaller is averaged.
        method = Image.Resampling.NEAREST if thumbnail.width <= size[0] else Image.Resampling.LANCZOS
        strip.paste(thumbnail.resize(size, method), (size[0] * index, 0))
    return data_uri(strip)


def data_uri(image: Image.Image) -> str:
    """The image as a PNG, or as a JPEG if that would be too large."""
    png = BytesIO()
    image.save(png, "PNG", optimize=True)
    if len(png.getvalue()) <= LARGEST_PNG:
        return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
