"""Contact sheets as pages embed them: the strip holds the images in order, and stays small."""

from __future__ import annotations

import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from feature_pictures import CONSTANT_PICTURE, colour_of, plain_image, plain_picture
from graph_page_case import small_graph
from PIL import Image

from experiments.pages.embedded_images import LARGEST_THUMBNAIL, SHEET_COLUMNS, ImageSheet, embedded_pictures, map_uri
from experiments.pages.embedded_images import embedded_picture as embedded_picture_on
from models.analysed import ExampleImage, FeaturePicture


def decoded(uri: str) -> Image.Image:
    header, content = uri.split(",")
    image = Image.open(BytesIO(base64.b64decode(content)))
    assert header == f"data:image/{(image.format or '').lower()};base64"
    return image


def embedded_picture(picture: FeaturePicture):
    return embedded_picture_on(picture, ImageSheet())


def noisy_picture(rows: int, columns: int, n: int = 8) -> FeaturePicture:
    """What compresses worst."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * n, rows, columns, 3), generator=generator, dtype=torch.uint8)
    examples = tuple(ExampleImage(image, 1.0, "noise", None) for image in images)
    return FeaturePicture(examples[:n], examples[n:], images[0])


def test_the_strip_holds_highest_lowest_and_direction_in_this_order():
    strip = decoded(str(embedded_picture(plain_picture(2, direction=True))["strip"]))
    assert (strip.format, strip.size) == ("PNG", (7 * 8, 8))
    colours = np.asarray(strip).reshape(8, 7, 8, 3)
    expected = [*(colour_of(2, number) for number in range(6)), (255, 0, 2)]
    assert (colours == np.array(expected)[None, :, None]).all()


def test_says_what_every_image_shows():
    embedded = embedded_picture(plain_picture(1, caption="ship", box=(2, 4, 4, 8), value=1.23456))
    assert embedded["direction"] is False
    assert embedded["aspect"] == 1
    assert embedded["highest"][0] == {"caption": "ship", "value": 1.235, "box": [50, 25, 50, 25]}
    assert [example["value"] for example in embedded["lowest"]] == [-1.235, -1.111, -0.9876]
    assert embedded_picture(plain_picture(1))["highest"][0]["box"] is None


def test_a_direction_of_another_size_is_drawn_as_large_as_the_images():
    picture = replace(plain_picture(1), direction=plain_image(9, 8, 7, rows=2, columns=2))
    strip = np.asarray(decoded(embedded_picture(picture)["strip"]))
    assert strip.shape == (8, 7 * 8, 3)
    assert (strip[:, -8:] == (9, 8, 7)).all()
    alone = replace(CONSTANT_PICTURE, direction=plain_image(9, 8, 7))
    assert decoded(embedded_picture(alone)["strip"]).size == (8, 8)


def test_large_images_become_thumbnails_of_their_shape():
    embedded = embedded_picture(noisy_picture(60, 120, n=2))
    assert decoded(embedded["strip"]).size == (5 * LARGEST_THUMBNAIL, LARGEST_THUMBNAIL // 2)
    assert embedded["aspect"] == 2


def test_what_would_be_large_as_png_is_a_jpeg_close_to_it():
    picture = noisy_picture(32, 32)
    # Photographs are smooth: noise on a scale of eight pixels is still harder to compress than they are.
    smooth = [
        torch.from_numpy(np.asarray(Image.fromarray(example.image.numpy()[:4, :4]).resize((32, 32), 3)).copy())
        for example in (*picture.highest, *picture.lowest)
    ]
    examples = tuple(ExampleImage(image, 1.0, "noise", None) for image in smooth)
    uri = str(embedded_picture(FeaturePicture(examples[:8], examples[8:], smooth[0]))["strip"])
    strip = decoded(uri)
    assert strip.format == "JPEG"
    assert len(uri) * 256 < 4 * 2**20, "four layers of 64 features in a page of less than 4 MB"
    assert np.abs(np.asarray(strip).astype(int) - np.concatenate([*smooth, smooth[0]], axis=1)).mean() < 4


def test_images_of_different_sizes_and_none_at_all_are_refused():
    picture = plain_picture(1)
    other = replace(picture.lowest[0], image=plain_image(1, 2, 3, rows=4))
    with pytest.raises(ValueError, match=r"images of \[\(4, 8\), \(8, 8\)\]"):
        embedded_picture(replace(picture, lowest=(other,)))
    with pytest.raises(ValueError, match="without images"):
        embedded_picture(CONSTANT_PICTURE)


def test_images_that_features_share_lie_once_on_the_sheet_of_the_page():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (SHEET_COLUMNS + 3, 8, 8, 3), generator=generator, dtype=torch.uint8)
    examples = tuple(ExampleImage(image, index / 7, f"class {index}", None) for index, image in enumerate(images))
    first = replace(plain_picture(1), quantiles=(examples[2:4], examples[4:6]), common=examples)
    second = replace(plain_picture(2), quantiles=(examples[4:6], examples[3:5]), common=examples)
    by_layer, page = embedded_pictures(small_graph(), {"layers.0": [CONSTANT_PICTURE, first, second]})
    assert page is not None
    sheet = np.asarray(decoded(str(page["sheet"])))
    assert sheet.shape == (2 * 8, SHEET_COLUMNS * 8, 3)
    assert (page["columns"], page["rows"], page["aspect"]) == (SHEET_COLUMNS, 2, 1)

    def on_sheet(number: int) -> np.ndarray:
        row, column = divmod(number, SHEET_COLUMNS)
        return sheet[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]

    for (number, caption), example in zip(page["common"], examples, strict=True):
        assert caption == example.caption
        assert (on_sheet(number) == example.image.numpy()).all()
    constant, *described = by_layer["layers.0"]["examples"]
    assert constant is None
    for embedded, picture in zip(described, (first, second), strict=True):
        assert embedded["common"] == pytest.approx([example.value for example in examples], rel=1e-3)
        for of_quantile, at in zip(embedded["quantiles"], picture.quantiles, strict=True):
            for found, example in zip(of_quantile, at, strict=True):
                assert (on_sheet(found["number"]) == example.image.numpy()).all()
                assert found["value"] == pytest.approx(example.value, rel=1e-3)


def test_without_pictures_there_is_no_sheet():
    assert embedded_pictures(small_graph(), {})[1] is None


def test_a_map_is_kept_pixel_by_pixel_with_a_palette(generator: torch.Generator):
    colours = torch.randint(0, 256, (33, 3), generator=generator, dtype=torch.uint8)
    pixels = colours[torch.randint(0, 33, (20, 30), generator=generator)]
    image = decoded(map_uri(pixels))
    assert (image.mode, image.size) == ("P", (30, 20))
    assert (np.asarray(image.convert("RGB")) == pixels.numpy()).all()


def test_a_map_of_more_colours_than_a_palette_holds_has_such_as_are_near():
    steps = 12 * torch.arange(20, dtype=torch.uint8)
    red, green = torch.meshgrid(steps, steps, indexing="ij")
    pixels = torch.stack([red, green, torch.zeros_like(red)], dim=-1)
    image = decoded(map_uri(pixels))
    assert image.mode == "P"
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels.numpy()).max() <= 24
