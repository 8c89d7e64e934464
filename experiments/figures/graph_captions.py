"""What stands below the columns of an interaction graph (node layer, features) and above the gaps between (edges)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from experiments.figures.graph_columns import Column, text_width
from experiments.figures.graph_layout import DrawnEdges, GraphLayout
from experiments.figures.layers import short_layer_names
from experiments.figures.style import GREY_TEXT

LINE_HEIGHT = 9.0
SPACE_BETWEEN = 6.0
BOLD = 1.15
"""How much wider bold text is."""


def captions_of(layout: GraphLayout) -> list[tuple[str, str]]:
    """Each column's node layer, and how many of its features are drawn; the first one bears the unit."""
    names = short_layer_names([drawn.layer for drawn in layout.layers])
    captions = []
    for index, drawn in enumerate(layout.layers):
        left_out = drawn.n_connected - len(drawn.features)
        count = f"{len(drawn.features)}{' features' if index == 0 else ''}"
        captions.append((names[drawn.layer], count + (f"\n+ {left_out} not drawn" if left_out else "")))
    return captions


def is_crowded(layout: GraphLayout, width: float) -> bool:
    """Whether columns stand too close for captions beside each other: then they are turned to read upwards."""
    widest = max(text_width(line) for caption in captions_of(layout) for line in "\n".join(caption).split("\n"))
    return width < (len(layout.layers) - 1) * (BOLD * widest + SPACE_BETWEEN)


def footer_height(layout: GraphLayout, width: float) -> float:
    """Points that captions take below the columns."""
    if is_crowded(layout, width):
        return LINE_HEIGHT + max(text_width(on_one_line(caption)) for caption in captions_of(layout))
    return LINE_HEIGHT * (1 + max("\n".join(caption).count("\n") + 1 for caption in captions_of(layout)))


def header_height(layout: GraphLayout, width: float) -> float:
    """Points that the numbers of edges take above the columns."""
    if is_crowded(layout, width):
        return LINE_HEIGHT + max(text_width(edge_count(edges)) for edges in layout.edges)
    return LINE_HEIGHT


def edge_count(edges: DrawnEdges) -> str:
    """How many edges are drawn; of how many, where some features are left out."""
    drawn = len(edges.strength)
    return f"{drawn} edges" if drawn == edges.n_shown else f"{drawn}/{edges.n_shown} edges"


def on_one_line(caption: tuple[str, str]) -> str:
    """A caption to be turned."""
    return ", ".join(caption).replace("\n", " ")


def caption_columns(layout: GraphLayout, columns: Sequence[Column], footer: float, axes: Axes) -> None:
    """Captions below the columns, in the lowest `footer` points of the Axes."""
    top = footer - LINE_HEIGHT / 2
    crowded = is_crowded(layout, float(axes.get_xlim()[1]))
    for (name, count), column in zip(captions_of(layout), columns, strict=True):
        if crowded:
            axes.text(column.middle, top, on_one_line((name, count)), rotation=90, ha="center", va="top")
            continue
        # The outer columns' captions are wider than the columns and would leave the panel if they were centred.
        x, align = column.middle, "center"
        if column is columns[0]:
            x, align = column.left, "left"
        elif column is columns[-1]:
            x, align = column.right, "right"
        below = top - LINE_HEIGHT * (name.count("\n") + 1)
        axes.text(x, top, name, ha=align, va="top", weight="bold")
        axes.text(x, below, count, ha=align, va="top", color=GREY_TEXT)


def caption_gaps(layout: GraphLayout, columns: Sequence[Column], axes: Axes) -> None:
    """How many edges are drawn between two columns, at the top of the Axes."""
    crowded = is_crowded(layout, float(axes.get_xlim()[1]))
    for edges, left, right in zip(layout.edges, columns, columns[1:], strict=False):
        middle, top = (left.right + right.left) / 2, axes.get_ylim()[1]
        look: dict[str, Any] = {"rotation": 90 if crowded else 0, "color": GREY_TEXT}
        if not crowded:
            # Beside a narrow last column a centred caption would leave the panel.
            middle = min(middle, float(axes.get_xlim()[1]) - text_width(edge_count(edges)) / 2)
        axes.text(middle, top, edge_count(edges), ha="center", va="top", **look)
