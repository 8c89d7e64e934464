"""Contact sheets: for each feature of a node layer the images it is highest on and the images it is lowest on.

All lengths are in points, measured on one Axes that fills the page from top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from experiments.figures.graph_columns import fitted, one_line, text_width
from experiments.figures.layers import short_layer_names
from experiments.figures.style import GREY_TEXT, PAGE_WIDTH, PALETTE, new_figure, styled
from models.analysed import ExampleImage, FeaturePicture

HIGHEST, LOWEST = "highest activation", "lowest activation"
MARGIN = 4.0
HEADER = 15.0
LINE_HEIGHT = 9.0
WIDEST_LABEL = 90.0
AFTER_NUMBER = 4.0
BETWEEN_IMAGES = 1.5
BETWEEN_GROUPS = 9.0
BETWEEN_ROWS = 4.0
LARGEST_IMAGE = 30.0
AROUND_POSITION = 0.7
"""Space between a position's pixels and the line of its frame, so that the line hides none of them."""
LARGER_AND_BOLD = 1.35
"""How much wider a bold number or the layer's name is than plain text."""
EDGE_COLOUR = "#c8c8c8"
"""Of the hairline around an image: white backgrounds would run into the page."""


@dataclass(frozen=True)
class SheetLayout:
    """Where things stand in every row, from the page's left edge.

    Attributes:
        label: left edge of the label, beside the feature's number.
        direction: left edge of the feature's own image; None without one.
        highest, lowest: left edge of the first image of either group.
        right: end of the last image.
        width, height: of an image.
        caption_height: room below the images for captions; zero where they do not fit.
    """

    label: float
    direction: float | None
    highest: float
    lowest: float
    right: float
    width: float
    height: float
    caption_height: float

    @property
    def label_end(self) -> float:
        """Right edge of the labels."""
        return (self.highest if self.direction is None else self.direction) - BETWEEN_GROUPS

    @property
    def row_height(self) -> float:
        """From one row's top to the next one's."""
        return max(self.height + self.caption_height, 2 * LINE_HEIGHT) + BETWEEN_ROWS


@dataclass(frozen=True)
class SheetRow:
    """A feature's number in its basis, its label and its images."""

    number: str
    label: str
    picture: FeaturePicture


@styled
def contact_sheet_figure(
    layer: str, pictures: Sequence[FeaturePicture], labels: Sequence[str], n_features: int = 16
) -> Figure:
    """One row per feature: its number, label and range of activations; the feature itself; highest and lowest images.

    A thin frame marks the position in the image where one position does not stand for all of it. Classes are written
    below the images where all of them fit.

    Args:
        layer: the node layer's name.
        pictures: of its first features, in the basis's order; one without images, the constant's, is left out.
        labels: of its features, in the same order; there may be more.
        n_features: how many are shown at most.

    Raises ValueError if a picture has no label or no feature has images.
    """
    if len(labels) < len(pictures):
        raise ValueError(f"{layer}: {len(labels)} labels for {len(pictures)} pictures; expected one each")
    shown = [index for index, picture in enumerate(pictures) if picture.highest][:n_features]
    if not shown:
        raise ValueError(f"{layer}: no feature has images; expected at least one beside the constant")
    name = short_layer_names([layer])[layer]
    rows = [SheetRow(str(index), one_line(labels[index]), pictures[index]) for index in shown]
    layout = sheet_layout(name, rows)
    height = 2 * MARGIN + HEADER + layout.row_height * len(rows) - BETWEEN_ROWS
    figure = new_figure(height / 72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    draw_header(axes, name, layout)
    for number, row in enumerate(rows):
        draw_row(axes, MARGIN + HEADER + number * layout.row_height, row, layout)
    axes.set(xlim=(0, 72 * PAGE_WIDTH), ylim=(height, 0))
    return figure


def sheet_layout(name: str, rows: Sequence[SheetRow]) -> SheetLayout:
    """Images as large as the page's width allows beside the labels and the layer's name above them."""
    pictures = [row.picture for row in rows]
    n_columns = max(len(picture.highest) for picture in pictures)
    with_direction = any(picture.direction is not None for picture in pictures)
    number_width = LARGER_AND_BOLD * max(text_width(row.number) for row in rows) + AFTER_NUMBER
    text_widths = [number_width + text_width(text) for row in rows for text in (row.label, range_text(row.picture))]
    # A point more than the widest, which rounding would otherwise cut short.
    label_width = min(WIDEST_LABEL, 1.0 + max(*text_widths, LARGER_AND_BOLD * text_width(name)))
    first = MARGIN + label_width + BETWEEN_GROUPS
    room = 72 * PAGE_WIDTH - MARGIN - first - BETWEEN_GROUPS * (1 + with_direction)
    n_images = 2 * n_columns + with_direction
    width = min(LARGEST_IMAGE, (room - 2 * (n_columns - 1) * BETWEEN_IMAGES) / n_images)
    group = max(n_columns * (width + BETWEEN_IMAGES) - BETWEEN_IMAGES, text_width(HIGHEST), text_width(LOWEST))
    highest = first + (width + BETWEEN_GROUPS if with_direction else 0.0)
    lowest = highest + group + BETWEEN_GROUPS
    n_pixel_rows, n_pixel_columns = pictures[0].highest[0].image.shape[:2]
    captions = {example.caption for picture in pictures for example in (*picture.highest, *picture.lowest)}
    legible = any(captions) and all(text_width(caption) <= width for caption in captions)
    return SheetLayout(
        label=MARGIN + number_width,
        direction=first if with_direction else None,
        highest=highest,
        lowest=lowest,
        right=lowest + group,
        width=width,
        height=width * n_pixel_rows / n_pixel_columns,
        caption_height=LINE_HEIGHT if legible else 0.0,
    )


def range_text(picture: FeaturePicture) -> str:
    """Lowest and highest activation."""
    return f"{picture.lowest[0].value:.2g} … {picture.highest[0].value:.2g}".replace("-", "−")


def draw_header(axes: Axes, name: str, layout: SheetLayout) -> None:
    """The node layer, and what the groups of images are; a rule under each."""
    base = MARGIN + HEADER - 4
    axes.text(
        MARGIN,
        base - 3,
        fitted(name, (layout.label_end - MARGIN) / LARGER_AND_BOLD),
        va="bottom",
        weight="bold",
        size=8,
    )
    groups = {HIGHEST: (layout.highest, layout.lowest - BETWEEN_GROUPS), LOWEST: (layout.lowest, layout.right)}
    for text, (left, right) in groups.items():
        axes.text(left, base - 3, text, va="bottom", color=GREY_TEXT)
        axes.plot([left, right], [base, base], color=GREY_TEXT, linewidth=0.5)
    if layout.direction is not None:
        middle = layout.direction + layout.width / 2
        axes.text(middle, base - 3, "feature", ha="center", va="bottom", color=GREY_TEXT)
        axes.plot([layout.direction, layout.direction + layout.width], [base, base], color=GREY_TEXT, linewidth=0.5)


def draw_row(axes: Axes, top: float, row: SheetRow, layout: SheetLayout) -> None:
    """One feature."""
    picture, middle = row.picture, top + layout.height / 2
    upper, lower = middle - LINE_HEIGHT / 2, middle + LINE_HEIGHT / 2
    axes.text(MARGIN, upper, row.number, va="center_baseline", weight="bold")
    axes.text(layout.label, upper, fitted(row.label, layout.label_end - layout.label), va="center_baseline")
    axes.text(layout.label, lower, range_text(picture), va="center_baseline", color=GREY_TEXT)
    if layout.direction is not None and picture.direction is not None:
        draw_image(axes, picture.direction, layout.direction, top, layout)
    for left, examples in ((layout.highest, picture.highest), (layout.lowest, picture.lowest)):
        for column, example in enumerate(examples):
            draw_example(axes, example, left + column * (layout.width + BETWEEN_IMAGES), top, layout)


def draw_example(axes: Axes, example: ExampleImage, left: float, top: float, layout: SheetLayout) -> None:
    """An image, the frame around its position, its caption."""
    draw_image(axes, example.image, left, top, layout)
    if example.box is not None:
        draw_frame(axes, example.box, example.image.shape[:2], left, top, layout)
    if layout.caption_height:
        baseline = top + layout.height + layout.caption_height / 2
        axes.text(left + layout.width / 2, baseline, example.caption, ha="center", va="center", color=GREY_TEXT)


def draw_frame(
    axes: Axes, box: tuple[int, int, int, int], shape: Sequence[int], left: float, top: float, layout: SheetLayout
) -> None:
    """A line around the pixels of `box`, white on both its sides to be seen on any image."""
    y_scale, x_scale = layout.height / shape[0], layout.width / shape[1]
    y, x = top + y_scale * box[0] - AROUND_POSITION, left + x_scale * box[1] - AROUND_POSITION
    height = y_scale * (box[2] - box[0]) + 2 * AROUND_POSITION
    width = x_scale * (box[3] - box[1]) + 2 * AROUND_POSITION
    halo = withStroke(linewidth=1.4, foreground="white")
    frame = Rectangle((x, y), width, height, fill=False, edgecolor=PALETTE[1], linewidth=0.6, path_effects=[halo])
    axes.add_patch(frame).set_gid("position")


def draw_image(axes: Axes, image: Tensor, left: float, top: float, layout: SheetLayout) -> None:
    """Pixels as they are, however large they become."""
    extent = (left, left + layout.width, top + layout.height, top)
    axes.imshow(np.asarray(image.cpu()), extent=extent, interpolation="nearest", aspect="auto")
    edge = Rectangle((left, top), layout.width, layout.height, fill=False, edgecolor=EDGE_COLOUR, linewidth=0.3)
    axes.add_patch(edge)
