"""Contact sheets on the interaction graph's page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import Page
from feature_pictures import CONSTANT_PICTURE, colour_of, plain_image, plain_picture
from graph_page_case import SIZES, embedded, needs_chromium, next_frame, node, small_content, text
from PIL import Image

from experiments.pages.graph_page import write_graph_page
from models.analysed import FeaturePicture

HOSTILE_CLASS = "\"><script>window.broken = true</script>'"


def pictures() -> dict[str, list[FeaturePicture]]:
    """Of the inputs' features, their direction too; of the last layer's none."""
    first = [replace(CONSTANT_PICTURE, direction=plain_image(0, 0, 255))]
    first += [plain_picture(feature, direction=True) for feature in range(1, SIZES["layers.0"] - 2)]
    second = [CONSTANT_PICTURE, *(plain_picture(f, n=8, box=(2, 4, 4, 8)) for f in range(1, SIZES["layers.1"]))]
    second[3] = plain_picture(3, caption=HOSTILE_CLASS)
    return {"layers.0": first, "layers.1": second}


def write(path: Path, of_features: dict[str, list[FeaturePicture]] | None) -> None:
    write_graph_page(path, small_content(pictures=of_features or {}))


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """The page with pictures; whatever is done to it must raise no error and ask for nothing."""
    write(tmp_path / "graph.html", pictures())
    browser.open(tmp_path / "graph.html")
    browser.run("document.querySelector('#only-connected').click()")
    browser.run("document.querySelector('#show-constant').click()")
    yield browser
    next_frame(browser)
    assert browser.errors == []
    assert browser.requests == []
    assert browser.run("window.broken === undefined")


def show(page: Page, layer: str, feature: int) -> None:
    page.run(f"{node(layer, feature)}.focus()")
    next_frame(page)


def count(page: Page, selector: str) -> int:
    return page.run(f"document.querySelectorAll({selector!r}).length")


def titles(page: Page, end: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll('.section-{end} .picture')].map((image) => image.title)")


def bounds(page: Page, selector: str) -> list[list[float]]:
    """Left, top, width, height of what a selector finds."""
    found = f"[...document.querySelectorAll({selector!r})].map((found) => found.getBoundingClientRect())"
    return page.run(f"{found}.map(({{x, y, width, height}}) => [x, y, width, height])")


def test_embeds_one_picture_per_feature_in_order(tmp_path: Path) -> None:
    write(tmp_path / "graph.html", pictures())
    first, second, last = (layer["examples"] for layer in embedded(tmp_path / "graph.html")["layers"])
    assert [len(first), len(second), len(last)] == [SIZES["layers.0"] - 2, SIZES["layers.1"], 0]
    assert first[0]["highest"] == []
    assert second[0] is None
    assert second[3]["highest"][0]["caption"] == HOSTILE_CLASS
    assert len({picture["strip"] for picture in first}) == len(first)


def test_more_pictures_than_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="output: 5 pictures for 4 features"):
        write(tmp_path / "graph.html", {"output": [plain_picture(i) for i in range(5)]})


@needs_chromium
def test_a_feature_s_panel_shows_its_images_in_order_with_class_and_value(page: Page, tmp_path: Path) -> None:
    show(page, "layers.0", 2)
    assert titles(page, "highest") == ["7: 10", "7: 9", "7: 8"]
    assert titles(page, "lowest") == ["7: -10", "7: -9", "7: -8"]
    page.screenshot(tmp_path / "page.png")
    screen = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    seen = bounds(page, "#panel .section-highest .picture, #panel .section-lowest .picture, #panel .direction")
    # The direction stands beside the numbers, above the images.
    expected = [(255, 0, 2), *(colour_of(2, number) for number in range(6))]
    for (left, top, width, height), colour in zip(seen, expected, strict=True):
        assert (width, height) == (56, 56)
        inside = screen[int(top) + 3 : int(top + height) - 3, int(left) + 3 : int(left + width) - 3]
        assert inside.size > 0
        assert (abs(inside - colour) <= 2).all()


@needs_chromium
def test_a_frame_marks_the_position(page: Page) -> None:
    show(page, "layers.1", 2)
    images, frames = bounds(page, "#panel .section-highest .picture"), bounds(page, "#panel .section-highest .position")
    assert len(images) == len(frames) == 8
    for (left, top, _, _), frame in zip(images, frames, strict=True):
        assert frame == pytest.approx([left + 28, top + 14, 28, 14], abs=0.1)
    show(page, "layers.0", 2)
    assert count(page, ".position") == 0


@needs_chromium
def test_features_without_pictures_have_none_and_nothing_stays_of_the_last_one(page: Page) -> None:
    show(page, "layers.0", 1)
    assert count(page, "#panel .picture") == 7
    for layer, feature, n in (("output", 1, 0), ("layers.1", 0, 0), ("layers.0", SIZES["layers.0"] - 1, 0)):
        show(page, layer, feature)
        assert text(page, ".fact-layer") == layer
        assert count(page, "#panel .picture") == n
    show(page, "layers.0", 0)
    assert count(page, "#panel .picture") == count(page, "#panel .direction") == 1


@needs_chromium
def test_classes_are_text(page: Page) -> None:
    show(page, "layers.1", 3)
    assert titles(page, "highest")[0] == f"{HOSTILE_CLASS}: 10"


@needs_chromium
def test_images_fit_into_the_panel(page: Page) -> None:
    show(page, "layers.1", 2)
    assert page.run("((panel) => panel.scrollWidth <= panel.clientWidth)(document.querySelector('aside'))")
    rows = {top for _, top, _, _ in bounds(page, "#panel .section-highest .picture")}
    assert len(rows) == 2


@needs_chromium
def test_the_legend_explains_pictures_only_where_there_are_some(page: Page, tmp_path: Path) -> None:
    assert page.run("document.querySelector('.of-images').hidden") is False
    write(tmp_path / "without.html", None)
    page.open(tmp_path / "without.html")
    assert page.run("document.querySelector('.of-images').hidden") is True
    page.run("document.querySelector('#only-connected').click()")
    show(page, "layers.0", 2)
    assert text(page, ".fact-layer") == "layers.0"
    assert count(page, "#panel .picture") == 0


@needs_chromium
def test_a_map_of_all_inputs_is_shown_pixel_by_pixel(browser: Page, tmp_path: Path) -> None:
    image = torch.randint(0, 2, (5, 5, 1)).expand(-1, -1, 3).mul(255).to(torch.uint8)
    write(tmp_path / "graph.html", {"layers.0": [CONSTANT_PICTURE, replace(CONSTANT_PICTURE, map=image)]})
    browser.open(tmp_path / "graph.html", 1280, 900)
    browser.run("document.querySelector('#only-connected').click()")
    show(browser, "layers.0", 1)
    browser.run("document.querySelector('#panel .map').scrollIntoView()")
    browser.run("document.querySelector('#panel .map').decode()")
    next_frame(browser)
    ((left, top, width, height),) = bounds(browser, "#panel .map")
    assert width == pytest.approx(height)
    browser.screenshot(tmp_path / "page.png")
    screen = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    for row in range(5):
        for column in range(5):
            y, x = int(top + (row + 0.5) * height / 5), int(left + (column + 0.5) * width / 5)
            assert abs(screen[y, x] - image[row, column].numpy()).max() <= 2
    show(browser, "layers.0", 2)
    assert count(browser, "#panel .map") == 0
    assert browser.errors == []
