"""The report's table of needed counts with their intervals over test examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.figures.groups import group_label
from experiments.pipeline.metric_keys import TOTAL, is_interval_end, parse_metric, plain
from experiments.reporting.evidence_tables import NotedTable
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.tables import MISSING, NOTHING, Entry, Table

NOTE = (
    "Needed counts over all node layers, and between brackets where 95 % of them lie when the test examples are drawn "
    "again with replacement, model and basis as they are: it covers which test examples were drawn, not which models, "
    "which data were fitted on, or how a method orders its features. Single layers are in `metrics.csv` "
    "(`needed_low`, `needed_high`)."
)


def intervals_table(runs: Sequence[FinishedRun]) -> NotedTable | None:
    """A row for each run and what was counted; None where no run has intervals."""
    keys = {parse_metric(name) for run in runs for name in run.metrics if is_interval_end(name)}
    tolerances = sorted({key.tolerance for key in keys if key.tolerance is not None})
    rows = tuple(row for run in runs for row in rows_of(run, tolerances))
    head = ("method", "run", "needed", *(f"{tolerance:g}" for tolerance in tolerances))
    return NotedTable(NOTE, Table("needed counts over test examples", head, rows, n_left=3)) if rows else None


def rows_of(run: FinishedRun, tolerances: Sequence[float]) -> Iterator[tuple[Entry, ...]]:
    """Of features and of edges, as far as the run has their intervals."""
    for kind in ("features", "edges"):
        entries = [entry_of(run, kind, tolerance) for tolerance in tolerances]
        if any(entry is not NOTHING for entry in entries):
            yield Entry(group_label(run.method)), Entry(run.label), Entry(kind), *entries


def entry_of(run: FinishedRun, kind: str, tolerance: float) -> Entry:
    """`848 (814 to 935)`; an end that even everything kept does not reach is left open."""
    count, *ends = (f"{kind}/needed{end}_{plain(tolerance)}/{TOTAL}" for end in ("", "_low", "_high"))
    value = run.metrics.get(count)
    if value is None or not all(end in run.metrics for end in ends):
        return NOTHING
    low, high = (MISSING if (end := run.metrics[name]) is None else f"{end:,.0f}" for name in ends)
    return Entry(f"{value:,.0f} ({low} to {high})", value)
