"""How every figure looks: sizes for a page 7 inches wide, colours that colour-blind readers can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from experiments.figures.groups import group_order
from libcore.methods import METHODS

PAGE_WIDTH = 7.0
TEXT_SIZE = 7.0
"""Inches and points; no text in a figure is smaller."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: equal figures on every machine
    "font.size": TEXT_SIZE,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.labelsize": TEXT_SIZE,
    "xtick.labelsize": TEXT_SIZE,
    "ytick.labelsize": TEXT_SIZE,
    "legend.fontsize": TEXT_SIZE,
    "legend.title_fontsize": TEXT_SIZE,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.handlelength": 1.6,
    "legend.borderpad": 0.3,
    "legend.labelspacing": 0.3,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 42,  # text stays text in the PDF
}
styled = matplotlib.rc_context(STYLE)
"""Decorator of every function that builds a figure; the caller's own settings are left as they were."""

NEUTRAL = "#999999"
"""What belongs to no community or group."""

GREY_TEXT = "#555555"
"""Text beside the matter."""

PALETTE = (
    "#0072b2",  # blue
    "#d55e00",  # vermillion
    "#009e73",  # bluish green
    "#cc79a7",  # reddish purple
    "#e69f00",  # orange
    "#56b4e9",  # sky blue
    "#882255",  # wine
    "#999933",  # olive
    "#332288",  # indigo
)
"""Okabe and Ito's colours without black and yellow, then three of Tol's muted ones."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


@dataclass(frozen=True)
class GroupStyle:
    """How a group of runs is drawn; `width` of its main line in points."""

    colour: str
    marker: str
    width: float

    @property
    def pale(self) -> str:
        """Colour of what stands behind the main line: single runs."""
        return lightened(self.colour, 0.45)


def group_styles(groups: Sequence[str]) -> dict[str, GroupStyle]:
    """A style for each different name, in the order given.

    Colours and markers are fixed for methods that have a place; others take the next free ones in alphabetical order,
    so that the order of the runs does not matter (past the palette's end colours repeat). Widths fall from group to
    group: where lines coincide, the later one is thinner and leaves the others seen.
    """
    distinct = list(dict.fromkeys(groups))
    n_methods = len(METHODS)  # counted once: installed ones are looked for on disk
    placed = sorted((name for name in METHODS if group_order(name)[0] < n_methods), key=group_order)
    names = placed + sorted(set(distinct) - set(placed))
    numbers = [names.index(group) for group in distinct]
    widths = np.linspace(2.0, 1.0, len(distinct)).tolist() if len(distinct) > 1 else [1.5]
    return {
        group: GroupStyle(PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)], width)
        for group, number, width in zip(distinct, numbers, widths, strict=True)
    }


def lightened(colour: str, share_of_white: float) -> str:
    """The colour mixed with white."""
    red, green, blue = (channel + (1 - channel) * share_of_white for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def new_figure(height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """An empty figure of page width, free of pyplot's global state; `height` in inches."""
    figure = Figure(figsize=(PAGE_WIDTH, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def new_grid(
    count: int, most_columns: int, row_height: float, beside: float, *, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` Axes, row by row; `beside` is for what stands above or below all rows, in inches."""
    n_columns = min(most_columns, count)
    n_rows = math.ceil(count / n_columns)
    figure = new_figure(row_height * n_rows + beside, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=share_y).flatten()
    for unused in grid[count:]:
        unused.remove()
    return figure, list(grid[:count])
