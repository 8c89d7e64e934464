"""Score against how many features, or edges, of one node layer are kept (METHOD.md 4)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import offset_copy

from experiments.config.scores import ACCURACY, NATS, Score
from experiments.figures.groups import group_label
from experiments.figures.layers import MAXIMUM_COLUMNS, layer_grid
from experiments.figures.legends import legend_above
from experiments.figures.style import NEUTRAL, TEXT_SIZE, GroupStyle, group_styles, lightened, styled

AblationKind = Literal["node", "edge"]
MARK_SIZE, MARK_SPACING = 4.0, 5.5
"""Points: of a mark, and from row to row of them."""
POINTS_PER_INCH = 72
MOST_NAMES, LONGEST_NAME = 5, 20
"""Groups, and characters of a group's name, that leave curves to be seen beside them in a third of a page."""


@dataclass(frozen=True)
class Curve:
    """One run's ablation of one node layer.

    Attributes:
        group: what is averaged over and drawn in one colour, such as the method's name.
        run: which of the group's runs, such as its seed.
        layer: node layer; for edges, the one they leave.
        score_by_kept: score on the test split by number of features or edges kept; NaN where it overflowed.
        test_score: score of the unablated model.
        needed: smallest number kept whose score is within the tolerance, by tolerance.
    """

    group: str
    run: str
    layer: str
    score_by_kept: dict[int, float]
    test_score: float
    needed: dict[float, int]

    def points(self) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
        """Numbers kept, ascending, and their scores; without zero, which a logarithmic axis has no place for."""
        kept = sorted(n for n, score in self.score_by_kept.items() if n > 0 and math.isfinite(score))
        return np.array(kept, dtype=float), np.array([self.score_by_kept[n] for n in kept], dtype=float)

    def scores_at(self, kept: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Score interpolated linearly in the logarithm of the number kept."""
        numbers, scores = self.points()
        return np.interp(np.log(kept), np.log(numbers), scores)

    def above_unablated(self) -> Curve:
        """The same with every score less the unablated model's: what ablation adds to a cross-entropy."""
        excess = {kept: score - self.test_score for kept, score in self.score_by_kept.items()}
        return replace(self, score_by_kept=excess, test_score=0.0)


@styled
def ablation_figure(curves: Sequence[Curve], kind: AblationKind, score: Score = ACCURACY) -> Figure:
    """One Axes per node layer in the order of the curves, one colour per group.

    A group of several runs is drawn as thin lines and their mean; each run's needed count at the tightest tolerance is
    marked above the Axes. Names of many groups, or long ones, stand above all Axes. A score that ablation lets grow,
    without a bound, is drawn as what it grows by, on a logarithmic axis. Raises ValueError without curves.
    """
    if not curves:
        raise ValueError("no ablation curve to draw; expected at least one")
    layers = list(dict.fromkeys(curve.layer for curve in curves))
    styles = group_styles([curve.group for curve in curves])
    tolerances = {tolerance for curve in curves for tolerance in curve.needed}
    tolerance = min(tolerances, default=None)
    figure, grid = layer_grid(layers, "edges from " if kind == "edge" else "")
    if score.lower_is_better:
        curves = [curve.above_unablated() for curve in curves]
        for axes in grid.values():
            excess_axis(curves, tolerance, axes)
    for layer, axes in grid.items():
        plot_ablation([curve for curve in curves if curve.layer == layer], styles, tolerance, axes, score)
    figure.supxlabel(f"{'features' if kind == 'node' else 'edges'} kept", fontsize=TEXT_SIZE)
    title = f"{score.name} above the unablated\n({NATS})" if score.lower_is_better else score.title
    figure.supylabel(title, fontsize=TEXT_SIZE)
    key = key_of(curves, tolerance, score)
    if stand_apart(styles):
        key = [line_of(style, group_label(group)) for group, style in styles.items()] + key
        # A row of marks for each group stands above every row of Axes.
        n_rows = math.ceil(len(layers) / MAXIMUM_COLUMNS)
        figure.set_figheight(figure.get_figheight() + n_rows * len(styles) * MARK_SPACING / POINTS_PER_INCH)
    legend_above(figure, key, at_most=4)
    return figure


def stand_apart(groups: Collection[str]) -> bool:
    """Whether the groups' names would cover the curves."""
    return len(groups) > MOST_NAMES or any(len(group_label(group)) > LONGEST_NAME for group in groups)


def line_of(style: GroupStyle, label: str) -> Line2D:
    """A group's line in a legend."""
    look: dict[str, Any] = {"color": style.colour, "linewidth": style.width, "marker": style.marker}
    return Line2D([], [], markersize=MARK_SIZE, label=label, **look)


def plot_ablation(
    curves: Sequence[Curve],
    styles: dict[str, GroupStyle],
    tolerance: float | None,
    axes: Axes,
    score: Score = ACCURACY,
) -> Axes:
    """The curves of one node layer; needed counts at `tolerance` stand above the Axes and in its legend."""
    count_axis(curves, axes)
    reference = tolerance if score.lower_is_better else float(np.mean([curve.test_score for curve in curves]))
    if reference:
        axes.axhline(reference, color="black", linestyle="--", linewidth=0.7)
    groups = [group for group in styles if any(curve.group == group for curve in curves)]
    handles = []
    for row, group in zip(range(len(groups), 0, -1), groups, strict=True):
        style = styles[group]
        members = [curve for curve in curves if curve.group == group]
        plot_group(members, style, axes)
        mark_needed(members, tolerance, style, row, axes)
        name = "" if stand_apart(styles) else group_label(group)
        if text := f"{name}  {needed_text(members, tolerance)}".strip():
            handles.append(line_of(style, text))
    axes.set_title(axes.get_title(), pad=6 + MARK_SPACING * len(groups))
    axes.legend(handles=handles, loc="best", ncols=1 if len(handles) <= MOST_NAMES else 2)
    return axes


def plot_group(curves: Sequence[Curve], style: GroupStyle, axes: Axes) -> None:
    """One group's runs at one node layer: a line, or thin lines and their mean."""
    if len(curves) == 1:
        axes.plot(*curves[0].points(), color=style.colour, linewidth=style.width, label=f"{curves[0].group} run")
        return
    for curve in curves:
        axes.plot(*curve.points(), color=style.pale, linewidth=0.6, label=f"{curve.group} run")
    axes.plot(*mean_curve(curves), color=style.colour, linewidth=style.width, label=f"{curves[0].group} mean", zorder=3)


def mark_needed(curves: Sequence[Curve], tolerance: float | None, style: GroupStyle, row: int, axes: Axes) -> None:
    """Each run's needed count as a mark above the Axes, a row per group: on the curves they would hide each other."""
    # Where nothing is needed the mark stands at the axis's left end: zero has no place on a logarithmic axis.
    lowest = min((numbers[0] for curve in curves if len(numbers := curve.points()[0])), default=1)
    needed = [max(lowest, curve.needed[tolerance]) for curve in curves if tolerance in curve.needed]
    at_top = axes.get_xaxis_transform()
    axes.plot(
        needed,
        np.ones(len(needed)),
        style.marker,
        color=style.colour,
        markersize=MARK_SIZE,
        markeredgecolor="white",
        markeredgewidth=0.4,
        transform=offset_copy(at_top, axes.get_figure(root=True), y=row * MARK_SPACING, units="points"),
        clip_on=False,
        label=f"{curves[0].group} needed",
    )


def count_axis(curves: Sequence[Curve], axes: Axes) -> None:
    """A logarithmic axis, thousands written as `k`; ticks between the powers of ten where few of those are in range."""
    kept = np.concatenate([curve.points()[0] for curve in curves])
    axes.set_xscale("log")
    spans_decades = np.max(kept, initial=1.0) / np.min(kept, initial=np.inf) > 50
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if spans_decades else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 10k: five digits run into each other
    axes.xaxis.set_minor_formatter(NullFormatter())


def excess_axis(curves: Sequence[Curve], tolerance: float | None, axes: Axes) -> None:
    """A logarithmic axis from a tenth of the tolerance up; lines leave it downwards, to scores as good or better."""
    excess = np.concatenate([curve.points()[1] for curve in curves])
    lowest = (tolerance or 0.01) / 10
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(lowest, 2 * float(np.max(excess, initial=10 * lowest)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # exponents are set too small to read
    axes.yaxis.set_minor_formatter(NullFormatter())


def mean_curve(curves: Sequence[Curve]) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Mean score over runs at every number that any of them kept, where all of them were measured."""
    curves = [curve for curve in curves if len(curve.points()[0])]
    if not curves:
        return np.empty(0), np.empty(0)
    numbers = [curve.points()[0] for curve in curves]
    lowest, highest = max(n[0] for n in numbers), min(n[-1] for n in numbers)
    kept = np.unique(np.concatenate(numbers))
    kept = kept[(kept >= lowest) & (kept <= highest)]
    return kept, np.mean([curve.scores_at(kept) for curve in curves], axis=0)


def needed_text(curves: Sequence[Curve], tolerance: float | None) -> str:
    """Needed count of one run, or mean and standard deviation over several, and over how many if not over all."""
    needed = [curve.needed[tolerance] for curve in curves if tolerance in curve.needed]
    if len(needed) < 2:
        return "".join(map(str, needed))
    of_how_many = f" ({len(needed)} of {len(curves)} runs)" if len(needed) < len(curves) else ""
    return f"{np.mean(needed):.0f} ± {np.std(needed, ddof=1):.0f}{of_how_many}"


def key_of(curves: Sequence[Curve], tolerance: float | None, score: Score = ACCURACY) -> list[Line2D]:
    """What the kinds of lines and marks mean."""
    key: list[Line2D] = []
    if tolerance or not score.lower_is_better:
        text = f"{tolerance:g} above the unablated" if score.lower_is_better else "unablated"
        key.append(Line2D([], [], color="black", linestyle="--", linewidth=0.7, label=text))
    if tolerance is not None:
        text = "needed to stay below it" if score.lower_is_better else f"needed to stay within {tolerance:g} of it"
        key.append(Line2D([], [], color=NEUTRAL, marker="o", linestyle="none", markersize=MARK_SIZE, label=text))
    per_group = [(curve.group, curve.layer) for curve in curves]
    if len(set(per_group)) < len(per_group):
        key.append(Line2D([], [], color=lightened(NEUTRAL, 0.45), linewidth=0.6, label="one run"))
        key.append(Line2D([], [], color=NEUTRAL, linewidth=1.8, label="mean of runs"))
    return key
