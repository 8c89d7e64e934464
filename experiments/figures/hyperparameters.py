"""Measures of finished runs against a configuration key that a sweep varied: a line for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter
from matplotlib.transforms import offset_copy

from experiments.figures.groups import group_label
from experiments.figures.hyperparameter_values import ABSENT, Value, value_text
from experiments.figures.legends import legend_above
from experiments.figures.style import NEUTRAL, TEXT_SIZE, GroupStyle, group_styles, lightened, new_grid, styled
from experiments.figures.value_axis import ValueAxis

Manner = Literal["styles", "mean", "marks"]
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


@styled
def hyperparameter_figure(runs: Sequence[SweptRun], key: str, measures: Sequence[str]) -> Figure:
    """One Axes per measure against `key`, at most two in a row; marks are means over runs, bars standard deviations.

    Where other keys vary as well, each of few combinations of them has its line style; of many, each is a thin line and
    their mean a thick one; where none was run at two values of `key`, as in a random search, there are marks alone.
    Raises ValueError where no run has any of the measures.
    """
    drawn = [name for name in measures if any(name in run.measures for run in runs)]
    if not drawn:
        raise ValueError(f"no measure to draw against {key}; expected one of {list(measures)}")
    axis = ValueAxis([run.values.get(key, ABSENT) for run in runs])
    styles = group_styles([run.group for run in runs])
    others = list(dict.fromkeys(run.others(key) for run in runs))
    manner = manner_of(runs, key, others)
    figure, grid = new_grid(len(drawn), 2, 1.9, 0.6)
    for axes, name in zip(grid, drawn, strict=True):
        measured = [run for run in runs if name in run.measures]
        plot_measure(measured, key, name, axis, styles, others, manner, axes)
    figure.supxlabel(key, fontsize=TEXT_SIZE)
    legend_above(figure, legend_of(styles, others, manner))
    return figure


def manner_of(runs: Sequence[SweptRun], key: str, others: Sequence[str]) -> Manner:
    """How combinations of the other keys are drawn."""
    values: dict[str, set[str]] = {}
    for run in runs:
        values.setdefault(run.others(key), set()).add(value_text(run.values.get(key, ABSENT)))
    if len(others) > 1 and max(map(len, values.values())) == 1:
        return "marks"
    return "styles" if len(others) <= len(LINE_STYLES) else "mean"


def plot_measure(
    runs: Sequence[SweptRun],
    key: str,
    name: str,
    axis: ValueAxis,
    styles: Mapping[str, GroupStyle],
    others: Sequence[str],
    manner: Manner,
    axes: Axes,
) -> Axes:
    """One measure: a line per group and line style."""
    axes.set_title(name)
    axis.prepare(axes)
    for number, (group, style) in enumerate(styles.items()):
        members = [run for run in runs if run.group == group]
        points = DODGE * (number - (len(styles) - 1) / 2)
        beside: dict[str, Any] = {
            "transform": offset_copy(axes.transData, axes.get_figure(root=True), x=points, units="points"),
            "has_bars": manner != "mean",  # means over other keys vary with these, which the thin lines show
        }
        main: dict[str, Any] = beside | {"color": style.colour, "linewidth": style.width, "marker": style.marker}
        for index, other in enumerate(others):
            of_other = [run for run in members if run.others(key) == other]
            look: dict[str, Any]
            if manner == "mean":
                look = beside | {"color": style.pale, "linewidth": 0.6}
            else:
                look = main | {"linestyle": LINE_STYLES[index] if manner == "styles" else "none"}
            plot_line(of_other, key, name, axis, axes, label=f"{group} {other}", **look)
        if manner == "mean":
            plot_line(members, key, name, axis, axes, label=f"{group} mean", zorder=3, **main)
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    if (low := min(run.measures[name] for run in runs)) == max(run.measures[name] for run in runs):
        margin = 0.05 * abs(low) or 0.05  # equal values: no axis of round-off
        axes.set_ylim(low - margin, low + margin)
    return axes


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


def legend_of(styles: Mapping[str, GroupStyle], others: Sequence[str], manner: Manner) -> list[Line2D]:
    """A line for each group, then what the line styles mean."""
    lines = [
        Line2D([], [], color=style.colour, linewidth=style.width, marker=style.marker, markersize=MARK_SIZE,
               label=group_label(group))
        for group, style in styles.items()
    ]  # fmt: skip
    if manner == "styles" and len(others) > 1:
        lines += [
            Line2D([], [], color=NEUTRAL, linewidth=1.2, linestyle=line, label=other)
            for other, line in zip(others, LINE_STYLES, strict=False)
        ]
    elif manner == "mean":
        lines.append(Line2D([], [], color=lightened(NEUTRAL, 0.45), linewidth=0.6, label="other keys fixed"))
        lines.append(
            Line2D([], [], color=NEUTRAL, linewidth=1.8, label=f"mean over {len(others)} values of the others")
        )
    return lines
