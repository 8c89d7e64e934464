"""The report's table: methods side by side, mean and spread over runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from experiments.figures.groups import group_label, group_order
from experiments.pipeline.metric_keys import in_order, is_interval_end, parse_metric
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.tables import NOTHING, Entry, Table

METRIC_GROUPS = (
    "score/test",
    "features/kept/",
    "features/identified/",
    "features/found_in_halves/",
    "features/needed_",
    "edges/needed_",
    "features/ablation_area/",
    "edges/ablation_area/",
    "edges/mass99/",
    "edges/hoyer/",
    "edges/gini/",
    "edges/participation/",
    "graph/",
)
"""Metrics that the table holds, in this order; times are in each run's `timings.json`."""


@dataclass(frozen=True)
class Cell:
    """One metric of one method over its runs."""

    values: tuple[float | int, ...]

    @property
    def mean(self) -> float:
        """Mean over runs."""
        return fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over runs; None for a single one."""
        return stdev(self.values) if len(self.values) > 1 else None

    def text(self) -> str:
        """`133`, `0.9996`, `120.5 ± 3.2`."""
        if self.spread is None:
            return number(self.mean)
        return f"{number(self.mean)} ± {number(self.spread)}"


@dataclass(frozen=True)
class Comparison:
    """Rows are metrics, columns methods; a missing metric is None."""

    methods: tuple[str, ...]
    runs: dict[str, int]
    rows: dict[str, dict[str, Cell | None]]


def compare(runs: Sequence[FinishedRun]) -> Comparison:
    """Collect the metrics of runs that differ in method, seed and half of the data only."""
    methods = tuple(sorted({run.method for run in runs}, key=group_order))
    names = {name for run in runs for name, value in run.metrics.items() if value is not None}
    # The mean of ends of intervals is no end of anything.
    names = {name for name in names if not is_interval_end(name)}
    ordered = [name for group in METRIC_GROUPS for name in in_order(name for name in names if name.startswith(group))]
    rows: dict[str, dict[str, Cell | None]] = {}
    for name in ordered:
        rows[name] = {}
        for method in methods:
            measured = (run.metrics.get(name) for run in runs if run.method == method)
            values = [value for value in measured if value is not None]
            rows[name][method] = Cell(tuple(values)) if values else None
    return Comparison(methods, {method: sum(run.method == method for run in runs) for method in methods}, rows)


def metrics_table(comparison: Comparison) -> Table:
    """All metrics."""
    return table_of(comparison, list(comparison.rows), "all metrics", "{} (n = {})")


def short_table(comparison: Comparison) -> Table:
    """The rows that answer the question: score, needed features and edges at the tightest tolerance, modularity."""
    needed = {name: key.tolerance for name in comparison.rows if (key := parse_metric(name)).tolerance is not None}
    tightest = min(needed.values(), default=None)
    names = [
        name
        for name in comparison.rows
        if name.startswith(("score/", "graph/", "edges/hoyer/")) or (name in needed and needed[name] == tightest)
    ]
    return table_of(comparison, names, "at the tightest tolerance" if needed else "main metrics", "{} (n={})")


def table_of(comparison: Comparison, names: Sequence[str], caption: str, column: str) -> Table:
    """These metrics, a column for each method; `column` says how its label and number of runs are written."""
    head = (column.format(group_label(method), comparison.runs[method]) for method in comparison.methods)
    rows = tuple(
        (Entry(name, is_code=True), *(entry_of(comparison.rows[name][method]) for method in comparison.methods))
        for name in names
    )
    return Table(caption, ("metric", *head), rows)


def entry_of(cell: Cell | None) -> Entry:
    """A cell's text, sorted by its mean."""
    return NOTHING if cell is None else Entry(cell.text(), cell.mean)


def to_csv(comparison: Comparison) -> str:
    """The table with a column each for mean, standard deviation and number of runs of every method."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["metric", *(f"{method}_{part}" for method in comparison.methods for part in ("mean", "std", "n"))])
    for name, row in comparison.rows.items():
        values: list[float | int | str] = []
        for method in comparison.methods:
            cell = row[method]
            values += (
                ["", "", 0]
                if cell is None
                else [cell.mean, "" if cell.spread is None else cell.spread, len(cell.values)]
            )
        writer.writerow([name, *values])
    return buffer.getvalue()


def number(value: float | int) -> str:
    """Whole numbers as they are, others with four significant digits or, above a thousand, as whole numbers."""
    whole = float(value).is_integer() or abs(value) >= 1000
    return f"{value:,.0f}" if whole and abs(value) < 1e15 else f"{value:.4g}"
