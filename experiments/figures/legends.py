"""Legends of lines that stand above all Axes of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

CHARACTERS, OF_A_LINE = 120, 6
"""That fit beside each other on a page; how many an entry's line and gap take."""
ROW_HEIGHT = 0.15
"""Inches."""


def legend_above(figure: Figure, lines: Sequence[Line2D], at_most: int = CHARACTERS) -> None:
    """Below the figure's upper edge, as many columns as fit and at most so many; the figure grows by further rows."""
    widths = [len(str(line.get_label())) + OF_A_LINE for line in lines]
    n_columns = next((n for n in range(min(len(lines), at_most), 1, -1) if width_in(widths, n) <= CHARACTERS), 1)
    figure.set_figheight(figure.get_figheight() + ROW_HEIGHT * (math.ceil(len(lines) / n_columns) - 1))
    figure.legend(handles=list(lines), loc="outside upper center", ncols=n_columns)


def width_in(widths: Sequence[int], n_columns: int) -> int:
    """Characters beside each other: matplotlib fills columns one after the other, longer ones first."""
    n_rows, n_longer = divmod(len(widths), n_columns)
    ends = [column * n_rows + min(column, n_longer) for column in range(n_columns + 1)]
    return sum(max(widths[start:end]) for start, end in pairwise(ends))
