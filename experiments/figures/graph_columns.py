"""Where the columns of an interaction graph stand, and how much of each label fits; all lengths in points."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from experiments.figures.graph_layout import DrawnLayer
from experiments.figures.style import STYLE, TEXT_SIZE
from experiments.pipeline.feature_table import FeatureTable

ROW_HEIGHT = 10.5
"""A label of `TEXT_SIZE` with its box and the space to the next."""
DOT_SIZE, DOT_PITCH = 2.2, 2.5
SMALLEST_GAP = 20.0
LABEL_MARGIN = 3.0
SHORTEST_LABEL = 18.0
"""Below this (about four characters) a label says nothing: dots are drawn instead."""
WIDEST_LABEL = 110.0


@dataclass(frozen=True)
class Column:
    """One node layer on the page.

    Attributes:
        layer: node layer.
        left, right: where edges enter and leave.
        height: of each drawn feature's middle, by its number in the basis, top to bottom.
        labels: of each drawn feature, cut to fit; None where features are drawn as dots.
    """

    layer: str
    left: float
    right: float
    height: dict[int, float]
    labels: dict[int, str] | None

    @property
    def middle(self) -> float:
        """Middle of the column."""
        return (self.left + self.right) / 2


def rows_height(drawn: DrawnLayer, maximum_labels: int) -> float:
    """Height that a column's features need."""
    row = ROW_HEIGHT if len(drawn.features) <= maximum_labels else DOT_PITCH
    return row * len(drawn.features)


def place_columns(
    layers: Sequence[DrawnLayer],
    table: FeatureTable,
    width: float,
    vertical: tuple[float, float],
    *,
    maximum_labels: int,
) -> list[Column]:
    """Columns from zero to `width`, all gaps between them equally wide, their features spread over `vertical`.

    A layer of more than `maximum_labels` features is drawn as dots, and so are all if no legible label fits.
    """
    labels: list[dict[int, str] | None] = [
        {feature: one_line(table.labels[drawn.layer][feature]) for feature in drawn.features}
        if len(drawn.features) <= maximum_labels
        else None
        for drawn in layers
    ]
    room = width - SMALLEST_GAP * (len(layers) - 1) - DOT_SIZE * labels.count(None)
    limit = label_limit([box_width(texts.values()) for texts in labels if texts is not None], room) - 2 * LABEL_MARGIN
    legible = limit >= SHORTEST_LABEL
    labels = [
        {feature: fitted(text, limit) for feature, text in texts.items()} if texts is not None and legible else None
        for texts in labels
    ]
    widths = [DOT_SIZE if texts is None else box_width(texts.values()) for texts in labels]
    gap = (width - sum(widths)) / max(1, len(layers) - 1)
    bottom, top = vertical
    columns, left = [], 0.0
    for drawn, texts, column_width in zip(layers, labels, widths, strict=True):
        pitch = (top - bottom) / max(1, len(drawn.features))
        height = {feature: top - (row + 0.5) * pitch for row, feature in enumerate(drawn.features)}
        columns.append(Column(drawn.layer, left, left + column_width, height, texts))
        left += column_width + gap
    return columns


def label_limit(widths: Sequence[float], room: float) -> float:
    """The widest box with which all columns fit into `room`: narrow columns leave theirs to the wide ones."""
    limit = WIDEST_LABEL
    for index, width in enumerate(sorted(widths)):
        share = room / (len(widths) - index)
        if width > share:
            return min(limit, share)
        room -= width
    return limit


def one_line(label: str) -> str:
    """The label with every run of white space, line breaks among it, as one space."""
    return " ".join(label.split())


def box_width(labels: Iterable[str]) -> float:
    """Width of the boxes of a column: that of its longest label and a margin."""
    return max((text_width(label) for label in labels), default=0.0) + 2 * LABEL_MARGIN


@cache
def text_width(text: str) -> float:
    """Width of one line of text."""
    font = FontProperties(family=str(STYLE["font.family"]), size=TEXT_SIZE)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]


def fitted(label: str, width: float) -> str:
    """The label, its end replaced by an ellipsis where it is wider than `width`: whole terms of a sum, if one fits."""
    if text_width(label) <= width:
        return label
    terms = label.split(" + ")
    for n in range(len(terms) - 1, 0, -1):
        if text_width(shorter := " + ".join(terms[:n]) + "…") <= width:
            return shorter
    length = bisect_right(range(1, len(label)), width, key=lambda n: text_width(label[:n] + "…"))
    return label[:length].rstrip() + "…"
