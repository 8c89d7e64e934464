"""Runs on both halves of the same data, and what the report says of how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.evidence.sentences import short
from experiments.figures.groups import group_label, group_order
from experiments.pipeline.metric_keys import parse_metric
from experiments.reporting.evidence_measures import MEASURES
from experiments.reporting.evidence_pairs import by_model, floor_of, reached_values
from experiments.reporting.evidence_rows import EvidenceRow, compared_names
from experiments.reporting.evidence_tables import NotedTable, measure_name, named, whole
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.tables import NOTHING, Entry, Table

CAPTION = "two halves of the data"
WHAT = (
    "What a measure changes by through the data that bases are fitted on: runs on either half of them, model and "
    "method being the same; the mean over pairs of halves, as a factor or a difference. Both halves are ablated on the "
    "same test examples, and half of the data is less to fit on than all of it."
)
BESIDE_METHODS = (
    " Over both methods' halves; `times` is how often that the difference between the methods is, of ratios by their "
    "logarithms. It is no test. Single layers are in `evidence.csv`."
)


def halves_part(runs: Sequence[FinishedRun], rows: Sequence[EvidenceRow]) -> NotedTable | None:
    """Beside the difference of two methods, where `rows` are of any; None where no run has another on the other half.

    Args:
        runs: of one setting.
        rows: of the whole model.
    """
    return halves_beside_methods(rows) if rows else halves_alone(runs)


def halves_alone(runs: Sequence[FinishedRun]) -> NotedTable | None:
    """Method by method."""
    value_of, entries = reached_values(runs), []
    names = {name: key for name in compared_names(runs) if (key := parse_metric(name)).is_whole}
    for method in sorted({run.method for run in runs}, key=group_order):
        of_method = by_model(run for run in runs if run.method == method)
        for name, key in names.items():
            if (floor := floor_of([of_method], name, value_of, MEASURES[key.kind].scale)) is not None:
                measured = (Entry(measure_name(key)), Entry(group_label(method)))
                entries.append((*measured, whole(floor.n_pairs), Entry(floor.text, floor.apart)))
    head = ("measure", "method", "pairs of halves", "halves differ by")
    return NotedTable(WHAT, Table(CAPTION, head, tuple(entries), n_left=2)) if entries else None


def halves_beside_methods(rows: Sequence[EvidenceRow]) -> NotedTable | None:
    """The floor beside the difference of the methods."""
    entries = tuple(
        (
            *named(row),
            whole(row.floor.n_pairs),
            Entry(row.floor.text, row.floor.apart),
            Entry(f"{row.comparison.scale} {short(row.comparison.estimate)}", row.comparison.estimate),
            NOTHING if (times := row.floor.times(row.comparison.estimate)) is None else Entry(short(times, 2), times),
        )
        for row in rows
        if row.floor is not None
    )
    head = ("measure", "methods", "pairs of halves", "halves differ by", "methods differ by", "times")
    return NotedTable(WHAT + BESIDE_METHODS, Table(CAPTION, head, entries, n_left=2)) if entries else None
