"""The scaling curves as a figure: seconds against size, each with its fitted exponent."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from experiments.benchmarks.scaling import Curve
from experiments.figures.style import MARKERS, PALETTE, new_grid, styled

STAGES = ("statistics", "basis", "edges")
COLUMNS = 3
LEAST_SPAN, ROOM_FOR_LEGEND = 20.0, 0.45
"""Highest over lowest value on an axis; share of its length, above the lines."""


@styled
def scaling_figure(curves: Sequence[Curve]) -> Figure:
    """One Axes for what varies; the dashed line beside the largest sizes grows as fitted."""
    figure, grid = new_grid(len(curves), COLUMNS, 2.0, 0.2)
    for axes, curve in zip(grid, curves, strict=True):
        plot_curve(curve, axes)
    figure.supylabel("seconds", fontsize=7)
    return figure


def plot_curve(curve: Curve, axes: Axes) -> Axes:
    """A line for each stage, logarithmic in both directions."""
    axes.set_title(f"{curve['what']}, {curve['model']}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for stage, seconds in curve["seconds"].items():
        number = STAGES.index(stage)
        label = f"{stage}, exponent {curve['exponents'][stage]:.2f}"
        axes.plot(curve["sizes"], seconds, color=PALETTE[number], marker=MARKERS[number], markersize=4, label=label)
    axes.xaxis.set_major_locator(FixedLocator(curve["sizes"]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    wider = max(1.0, (LEAST_SPAN / (high / low)) ** 0.5)  # what does not grow is drawn flat
    low, high = low / wider, high * wider
    axes.set_ylim(low, high * (high / low) ** ROOM_FOR_LEGEND)
    axes.legend(loc="upper left")
    return axes
