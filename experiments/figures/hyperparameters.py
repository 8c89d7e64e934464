"""Measures of finished runs against a configuration key that a sweep varied: a line for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator, ScalarFormatter
from matplotlib.transforms import offset_copy

from experiments.figures.groups import group_label
from experiments.figures.hyperparameter_values import ABSENT, Value, distinct, is_numeric, value_text
from experiments.figures.style import NEUTRAL, TEXT_SIZE, GroupStyle, group_styles, lightened, new_figure, styled

LOGARITHMIC_FROM = 20.0
"""Largest over smallest value from which a linear axis would crowd the small ones."""
MOST_TICKS = 8
LINE_STYLES = ("-", "--", ":")
"""Of combinations of the other keys, where there are no more than these."""
MARK_SIZE = 4.0
DODGE = 3.0
"""Points between methods at the same value: their bars would hide each other."""


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep.

    Attributes:
        group: what has a line of its own, such as the method's name.
        values: of the keys that differ within the sweep.
        measures: what was measured, by name; a run may lack some.
    """

    group: str
    values: Mapping[str, Value]
    measures: Mapping[str, float | int]

    def others(self, key: str) -> str:
        """The other keys' values: `analysis.integration=gradient`."""
        return ", ".join(f"{name}={value_text(value)}" for name, value in self.values.items() if name != key)


class ValueAxis:
    """Where values of one key stand: numbers to scale, logarithmically if they span decades; others side by side."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = distinct(values)
        self.is_numeric = all(map(is_numeric, self.values))
        self.is_logarithmic = (
            self.is_numeric and self.values[0] > 0 and self.values[-1] / self.values[0] >= LOGARITHMIC_FROM
        )
        self._places = {value_text(value): index for index, value in enumerate(self.values)}

    def place(self, value: Value) -> float:
        """On the axis."""
        return float(value) if self.is_numeric else float(self._places[value_text(value)])

    def prepare(self, axes: Axes) -> None:
        """Scale and ticks."""
        if self.is_logarithmic:
            axes.set_xscale("log")
        if not self.is_numeric or len(self.values) <= MOST_TICKS:
            texts = {self.place(value): value_text(value) for value in self.values}
            axes.xaxis.set_major_locator(FixedLocator(list(texts)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: texts.get(place, "")))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        if not self.is_numeric:
            axes.set_xlim(-0.5, len(self.values) - 0.5)
            longest = max(len(value_text(value)) for value in self.values)
            if longest * len(self.values) > 40:  # characters side by side in half a page
                axes.tick_params(axis="x", rotation=30)
                for label in axes.get_xticklabels():
                    label.set_horizontalalignment("right")


@styled
def hyperparameter_figure(runs: Sequence[SweptRun], key: str, measures: Sequence[str]) -> Figure:
    """One Axes per measure against `key`, at most two in a row; marks are means over runs, bars standard deviations.

    Where other keys vary as well, each of few combinations of them has its line style; of many, each is a thin line and
    their mean a thick one. Raises ValueError where no run has any of the measures.
    """
    drawn = [name for name in measures if any(name in run.measures for run in runs)]
    if not drawn:
        raise ValueError(f"no measure to draw against {key}; expected one of {list(measures)}")
    axis = ValueAxis([run.values.get(key, ABSENT) for run in runs])
    styles = group_styles([run.group for run in runs])
    others = list(dict.fromkeys(run.others(key) for run in runs))
    n_columns = min(2, len(drawn))
    n_rows = math.ceil(len(drawn) / n_columns)
    figure = new_figure(1.9 * n_rows + 0.6, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    for unused in grid[len(drawn) :]:
        unused.remove()
    for axes, name in zip(grid, drawn, strict=False):
        measured = [run for run in runs if name in run.measures]
        plot_measure(measured, key, name, axis, styles, others, axes)
    figure.supxlabel(key, fontsize=TEXT_SIZE)
    key_lines = legend_of(styles, others)
    figure.legend(handles=key_lines, loc="outside upper center", ncols=legend_columns(key_lines))
    return figure


def plot_measure(
    runs: Sequence[SweptRun],
    key: str,
    name: str,
    axis: ValueAxis,
    styles: Mapping[str, GroupStyle],
    others: Sequence[str],
    axes: Axes,
) -> Axes:
    """One measure: a line per group and line style."""
    axes.set_title(name)
    axis.prepare(axes)
    is_styled = len(others) <= len(LINE_STYLES)
    for number, (group, style) in enumerate(styles.items()):
        members = [run for run in runs if run.group == group]
        points = DODGE * (number - (len(styles) - 1) / 2)
        beside = {
            "transform": offset_copy(axes.transData, axes.get_figure(root=True), x=points, units="points"),
            "has_bars": is_styled,  # means over other keys vary with these, which the thin lines show
        }
        main = beside | {"color": style.colour, "linewidth": style.width, "marker": style.marker}
        for index, other in enumerate(others):
            of_other = [run for run in members if run.others(key) == other]
            look = main | {"linestyle": LINE_STYLES[index]} if is_styled else beside | thin(style)
            plot_line(of_other, key, name, axis, axes, label=f"{group} {other}", **look)
        if not is_styled:
            plot_line(members, key, name, axis, axes, label=f"{group} mean", zorder=3, **main)
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    if (low := min(run.measures[name] for run in runs)) == max(run.measures[name] for run in runs):
        margin = 0.05 * abs(low) or 0.05  # equal values: no axis of round-off
        axes.set_ylim(low - margin, low + margin)
    return axes


def thin(style: GroupStyle) -> dict[str, Any]:
    """How a line looks that stands behind a mean."""
    return {"color": style.pale, "linewidth": 0.6}


def plot_line(
    runs: Sequence[SweptRun], key: str, name: str, axis: ValueAxis, axes: Axes, *, has_bars: bool, **look: Any
) -> None:
    """Means over runs at every value of the key, with standard deviations where there are several runs."""
    by_place: dict[float, list[float]] = {}
    for run in runs:
        by_place.setdefault(axis.place(run.values.get(key, ABSENT)), []).append(run.measures[name])
    if not by_place:
        return
    places = sorted(by_place)
    means = [float(np.mean(by_place[place])) for place in places]
    spreads = [float(np.std(by_place[place], ddof=1)) if len(by_place[place]) > 1 else 0.0 for place in places]
    errors = spreads if has_bars and any(spreads) else None
    axes.errorbar(places, means, errors, markersize=MARK_SIZE, capsize=2, elinewidth=0.7, **look)
    # matplotlib leaves what stands beside its place out of the limits.
    reach = errors or [0.0] * len(means)
    ends = [
        (place, mean + sign * spread)
        for place, mean, spread in zip(places, means, reach, strict=True)
        for sign in (-1, 1)
    ]
    axes.update_datalim(ends)
    axes.autoscale_view()


def legend_of(styles: Mapping[str, GroupStyle], others: Sequence[str]) -> list[Line2D]:
    """A line for each group, then what the line styles mean."""
    lines = [
        Line2D([], [], color=style.colour, linewidth=style.width, marker=style.marker, markersize=MARK_SIZE,
               label=group_label(group))
        for group, style in styles.items()
    ]  # fmt: skip
    if 1 < len(others) <= len(LINE_STYLES):
        lines += [
            Line2D([], [], color=NEUTRAL, linewidth=1.2, linestyle=line, label=other)
            for other, line in zip(others, LINE_STYLES, strict=False)
        ]
    elif len(others) > 1:
        lines.append(Line2D([], [], color=lightened(NEUTRAL, 0.45), linewidth=0.6, label="other keys fixed"))
        lines.append(
            Line2D([], [], color=NEUTRAL, linewidth=1.8, label=f"mean over {len(others)} values of the others")
        )
    return lines


def legend_columns(lines: Sequence[Line2D]) -> int:
    """As many as fit beside each other on a page."""
    longest = max(len(str(line.get_label())) for line in lines)
    return max(1, min(len(lines), 110 // (longest + 6)))
