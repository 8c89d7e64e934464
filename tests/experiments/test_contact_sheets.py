"""Contact sheets: the right images stand in the right rows, framed where the position is, and texts can be read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from feature_pictures import CONSTANT_PICTURE, colour_of, plain_picture
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from experiments.figures.contact_sheets import contact_sheet_figure
from experiments.figures.style import PAGE_WIDTH, TEXT_SIZE

PICTURES = [CONSTANT_PICTURE, *(plain_picture(feature) for feature in range(1, 6))]
LABELS = ["constant", *(f"seven {feature}/3" for feature in range(1, 6))]


def images_by_row(figure: Figure) -> list[list[AxesImage]]:
    """Top to bottom, left to right."""
    (axes,) = figure.axes
    rows: dict[float, list[AxesImage]] = {}
    for image in axes.get_images():
        rows.setdefault(round(image.get_extent()[3], 3), []).append(image)
    return [sorted(rows[top], key=lambda image: image.get_extent()[0]) for top in sorted(rows)]


def colours(row: list[AxesImage]) -> list[tuple[int, ...]]:
    return [tuple(np.asarray(image.get_array())[0, 0].tolist()) for image in row]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def frames(figure: Figure) -> list:
    return figure.findobj(lambda artist: artist.get_gid() == "position")


def assert_legible(figure: Figure) -> None:
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_text()]
    boxes = [text.get_window_extent() for text in shown]
    images = [image.get_window_extent() for image in figure.axes[0].get_images()]
    for index, (text, box) in enumerate(zip(shown, boxes, strict=True)):
        assert text.get_fontsize() >= TEXT_SIZE
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
        for other in (*boxes[:index], *images):
            assert not box.overlaps(other), (text, box, other)


def test_every_row_shows_the_highest_then_the_lowest_images_of_its_feature():
    rows = images_by_row(contact_sheet_figure("layers.1", PICTURES, LABELS))
    assert [colours(row) for row in rows] == [
        [colour_of(feature, number) for number in range(6)] for feature in range(1, 6)
    ]


def test_rows_bear_number_label_and_range_and_the_constant_is_left_out():
    shown = texts(contact_sheet_figure("layers.1", PICTURES, LABELS))
    assert [text for text in shown if "seven" in text] == [f"seven {i}/3" for i in range(1, 6)]
    assert [text for text in shown if text in "0123456789" and text != "7"] == ["1", "2", "3", "4", "5"]
    assert shown.count("−10 … 10") == 5
    assert "layers.1" in shown
    assert not any("constant" in text for text in shown)


def test_no_more_features_than_asked_for():
    rows = images_by_row(contact_sheet_figure("layers.1", PICTURES, LABELS, n_features=2))
    assert [colours(row)[0] for row in rows] == [colour_of(1, 0), colour_of(2, 0)]


def test_the_gap_stands_between_highest_and_lowest():
    row = images_by_row(contact_sheet_figure("layers.1", PICTURES, LABELS))[0]
    gaps = [after.get_extent()[0] - before.get_extent()[1] for before, after in pairwise(row)]
    assert gaps.index(max(gaps)) == 2
    assert max(gaps) > 3 * min(gaps) > 0


def test_the_feature_itself_stands_first_where_there_is_one():
    pictures = [CONSTANT_PICTURE, plain_picture(1, direction=True), plain_picture(2)]
    figure = contact_sheet_figure("layers.0", pictures, LABELS)
    first, second = images_by_row(figure)
    assert colours(first) == [(255, 0, 1), *(colour_of(1, number) for number in range(6))]
    assert len(second) == 6
    assert second[0].get_extent()[0] == pytest.approx(first[1].get_extent()[0])
    assert "feature" in texts(figure)
    assert "feature" not in texts(contact_sheet_figure("layers.1", PICTURES, LABELS))


def test_a_frame_encloses_the_position_s_pixels_closely():
    figure = contact_sheet_figure("layers.1", [plain_picture(1, box=(2, 4, 4, 8))], ["seven"])
    found = sorted(frames(figure), key=lambda frame: frame.get_x())
    for image, frame in zip(images_by_row(figure)[0], found, strict=True):
        left, right, bottom, top = image.get_extent()
        pixel = (right - left) / 8
        box = frame.get_bbox()
        expected = (left + 4 * pixel, top + 2 * pixel, left + 8 * pixel, top + 4 * pixel)
        assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(expected, abs=1.0)
        assert box.x0 < expected[0] < expected[2] < box.x1
    assert bottom > top, "rows of an image run down the page"
    assert not frames(contact_sheet_figure("layers.1", PICTURES, LABELS))


def test_captions_stand_where_all_of_them_fit():
    short = contact_sheet_figure("layers.1", [plain_picture(1, caption="7")], ["seven"])
    assert texts(short).count("7") == 6
    long = contact_sheet_figure("layers.1", [plain_picture(1, caption="automobile")], ["car"])
    assert "automobile" not in texts(long)


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize(("caption", "label"), [("7", "seven"), ("automobile", "one that is much too long " * 4)])
@pytest.mark.parametrize("value", [10.0, 12.3456789e-12])
def test_texts_are_legible_and_images_stay_on_the_page(n, caption, label, value):
    pictures = [plain_picture(i, n, caption, (0, 0, 1, 1), direction=True, value=value) for i in range(1, 5)]
    figure = contact_sheet_figure("blocks.0.a_layer_of_a_very_long_name", pictures, [label] * 4)
    assert_legible(figure)
    assert figure.get_figwidth() == PAGE_WIDTH
    for image in figure.axes[0].get_images():
        box = image.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert box.width == pytest.approx(box.height), "pixels are square"


def test_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match=r"layers.1: 2 labels for 6 pictures"):
        contact_sheet_figure("layers.1", PICTURES, LABELS[:2])
    with pytest.raises(ValueError, match=r"layers.1: no feature has images"):
        contact_sheet_figure("layers.1", [CONSTANT_PICTURE], LABELS)


@pytest.mark.parametrize("n", range(3, 20))
def test_a_label_with_room_is_written_in_full(n):
    label = f"automobile {n}/8"
    figure = contact_sheet_figure("layers.0", PICTURES, ["constant", label, *["cat 3/8"] * 4])
    assert label in texts(figure)
