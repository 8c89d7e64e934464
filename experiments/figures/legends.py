"""Legends of lines that stand above all Axes of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

CHARACTERS = 110
"""That fit beside each other on a page, line and gap of an entry counted as six."""
ROW_HEIGHT = 0.15
"""Inches."""


def legend_above(figure: Figure, lines: Sequence[Line2D], at_most: int = CHARACTERS) -> None:
    """Below the figure's upper edge, as many columns as fit and at most so many; the figure grows by further rows."""
    longest = max(len(str(line.get_label())) for line in lines)
    n_columns = max(1, min(len(lines), at_most, CHARACTERS // (longest + 6)))
    figure.set_figheight(figure.get_figheight() + ROW_HEIGHT * (math.ceil(len(lines) / n_columns) - 1))
    figure.legend(handles=list(lines), loc="outside upper center", ncols=n_columns)
