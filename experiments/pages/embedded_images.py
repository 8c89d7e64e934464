"""Pictures of features as an HTML page embeds them, as data URIs: one strip of thumbnails per feature for both ends.

Images at quantiles and those common to all features recur, and lie on one sheet for the whole page.
"""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from libcore.graph import InteractionGraph
from models.analysed import ExampleImage, FeaturePicture

LARGEST_THUMBNAIL = 32
"""Pixels; larger images are made smaller, lest a page of many features take long to load."""
LARGEST_PNG = 8 * 2**10
"""Bytes; a strip that takes more becomes a JPEG, whose losses cannot be seen at a sixth of the size.

With both limits a page of 256 features with 17 photographs each stays under 4 MB."""
JPEG_QUALITY = 90
SHEET_COLUMNS = 16
MOST_COLOURS = 256
"""Of an image with a palette."""
LARGEST_SHEET_PNG = 2**18
"""Bytes, of the sheet of images that many features share."""

Embedded = dict[str, object]


class ImageSheet:
    """Images that several features show, each on the sheet once, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._images: list[UInt8[Tensor, "height width 3"]] = []
        self._numbers: dict[bytes, int] = {}

    def number(self, image: UInt8[Tensor, "height width 3"]) -> int:
        """Of this image, which is taken in if it is new."""
        content = image.contiguous().cpu().numpy().tobytes()
        if content not in self._numbers:
            self._numbers[content] = len(self._images)
            self._images.append(image)
        return self._numbers[content]

    def embedded(self) -> Embedded | None:
        """`sheet`, rows of `columns` thumbnails; how many `rows`; `aspect` of each. None without images."""
        if not self._images:
            return None
        rows, columns = self._images[0].shape[:2]
        size = thumbnail_size(rows, columns)
        lines = [
            thumbnails(self._images[start : start + SHEET_COLUMNS], size, SHEET_COLUMNS)
            for start in range(0, len(self._images), SHEET_COLUMNS)
        ]
        sheet = Image.new("RGB", (lines[0].width, size[1] * len(lines)))
        for index, line in enumerate(lines):
            sheet.paste(line, (0, size[1] * index))
        uri = data_uri(sheet, LARGEST_SHEET_PNG)
        return {"sheet": uri, "columns": SHEET_COLUMNS, "rows": len(lines), "aspect": columns / rows}


def embedded_pictures(
    graph: InteractionGraph, pictures: dict[str, list[FeaturePicture]]
) -> tuple[dict[str, Embedded], Embedded | None]:
    """By node layer, contact sheets of its first features (None without an image); and the sheet that they share."""
    sheet = ImageSheet()
    by_layer: dict[str, Embedded] = {}
    common: list[ExampleImage] = []
    for layer in graph.node_layers:
        of_layer = pictures.get(layer, [])
        if len(of_layer) > graph.bases[layer].n_features:
            raise ValueError(
                f"{layer}: {len(of_layer)} pictures for {graph.bases[layer].n_features} features; "
                "expected one each at most"
            )
        common = common or next((list(picture.common) for picture in of_layer if picture.common), [])
        shown = [
            embedded_picture(picture, sheet) if picture.highest or has_own_image(picture) else None
            for picture in of_layer
        ]
        by_layer[layer] = {"first": 0, "examples": shown}
    first = [[sheet.number(example.image), example.caption] for example in common]
    embedded = sheet.embedded()
    return by_layer, None if embedded is None else embedded | {"common": first}


def has_own_image(picture: FeaturePicture) -> bool:
    """Whether there is something to see of the feature beside examples."""
    return picture.direction is not None or picture.map is not None


def embedded_picture(picture: FeaturePicture, sheet: ImageSheet) -> Embedded:
    """What the page needs to show one feature's contact sheet.

    Returns:
        `map`: of the activation on all inputs, null for none;
        `strip`: the thumbnails side by side, the highest, then the lowest, then the direction; `aspect`: width of a
        thumbnail by its height; `highest`, `lowest`: what is known of each; `direction`: whether there is one;
        `quantiles`: likewise with the image's `number` on the sheet; `common`: activations on the common images.

    Raises ValueError if the images differ in size or there is none.
    """
    examples = [*picture.highest, *picture.lowest]
    images = [example.image for example in examples]
    sizes = sorted({tuple(image.shape[:2]) for image in images})
    if len(sizes) > 1:
        raise ValueError(f"images of {sizes} rows and columns on one contact sheet; expected all of one size")
    if picture.direction is not None:
        images.append(picture.direction)
    if not images and picture.map is None:
        raise ValueError("a contact sheet without images; expected at least one, or the feature itself")
    rows, columns = images[0].shape[:2] if images else (1, 1)
    return {
        "map": map_uri(picture.map) if picture.map is not None else None,
        "strip": strip_of(images, thumbnail_size(rows, columns)) if images else None,
        "aspect": columns / rows,
        "highest": [embedded_example(example) for example in picture.highest],
        "lowest": [embedded_example(example) for example in picture.lowest],
        "direction": picture.direction is not None,
        "quantiles": [
            [embedded_example(example) | {"number": sheet.number(example.image)} for example in examples]
            for examples in picture.quantiles
        ],
        "common": [embedded_example(example)["value"] for example in picture.common],
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
    """The images side by side as a data URI, each scaled to `size`."""
    return data_uri(thumbnails(images, size, len(images)), LARGEST_PNG)


def thumbnails(images: list[UInt8[Tensor, "_ _ 3"]], size: tuple[int, int], columns: int) -> Image.Image:
    """The images side by side in a line of so many columns, each scaled to `size`."""
    strip = Image.new("RGB", (size[0] * columns, size[1]))
    for index, image in enumerate(images):
        thumbnail = Image.fromarray(np.ascontiguousarray(image.cpu()))
        # What is enlarged keeps its pixels; what is made smaller is averaged.
        method = Image.Resampling.NEAREST if thumbnail.width <= size[0] else Image.Resampling.LANCZOS
        strip.paste(thumbnail.resize(size, method), (size[0] * index, 0))
    return strip


def map_uri(image: UInt8[Tensor, "_ _ 3"]) -> str:
    """The image, of few colours, pixel by pixel."""
    png = BytesIO()
    of_few_colours(np.ascontiguousarray(image.cpu())).save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def of_few_colours(pixels: UInt8[np.ndarray, "row column 3"]) -> Image.Image:
    """With a palette of the colours that there are; of more than it holds, of such as are near."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours = np.unique(packed)
    if len(colours) > MOST_COLOURS:
        return Image.fromarray(pixels).quantize()
    image = Image.fromarray(np.searchsorted(colours, packed).astype(np.uint8)).convert("P")
    image.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8).tobytes())
    return image


def data_uri(image: Image.Image, largest_png: int) -> str:
    """The image as a PNG, or as a JPEG if that would be larger than so many bytes."""
    png = BytesIO()
    image.save(png, "PNG", optimize=True)
    if len(png.getvalue()) <= largest_png:
        return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
