"""The evidence as tables of the report and as `evidence.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.evidence.corrections import HOLM, TITLES, Correction
from experiments.evidence.effect_sizes import ratio_of_geometric_means
from experiments.evidence.needed_models import MOST
from experiments.evidence.sentences import short
from experiments.figures.groups import group_label
from experiments.pipeline.metric_keys import MetricKey
from experiments.reporting.evidence_rows import EvidenceRow
from experiments.reporting.tables import NOTHING, Entry, Table

NOTE = (
    "A pair is both methods on one model: a seed or a checkpoint; halves of its data are averaged. "
    "Median: of the differences. Intervals: nominal 95 % over models, of the ratio of geometric means, else of the "
    "mean difference. p: exact and two-sided, by the sign test below 6 models that differ, by Wilcoxon's test from "
    "there; corrected for the layers of one measure by {correction}, not for measures, tolerances and methods. "
    "Decided: corrected p at most 0.05 and most models on that side, which fewer than 6 models cannot show. "
    "Effect: rank-biserial correlation of the models that differ, -1 to 1. Left out are models of which a method is "
    "not within tolerance even with everything kept. Every pair of methods and every layer is in `evidence.csv`."
)
ONE_MODEL = (
    "No pair of methods ran on more than one model (one seed or checkpoint is one model, halves of its data are not "
    "more): nothing is said of others. It takes at least 6 models, all of which agree, to decide anything; "
    "every pair is in `evidence.csv`."
)


@dataclass(frozen=True)
class NotedTable:
    """A table with how to read it."""

    note: str
    table: Table


@dataclass(frozen=True)
class Evidence:
    """What a section shows of its evidence.

    Attributes:
        rows: all of them, for the CSV.
        note: how to read them; a sentence alone where there is no more than one model, empty without a common model.
        whole: totals and measures of the whole graph, the first method beside each other one; None with one model.
        layers: the same of single layers.
        open_questions: how many models would decide what is undecided; None where all is decided, and with one model.
        of_data: what is known of the data's part: halves that bases are fitted on, test examples.
    """

    rows: tuple[EvidenceRow, ...]
    note: str
    whole: Table | None
    layers: Table | None
    open_questions: Table | None
    of_data: tuple[NotedTable, ...] = ()

    @property
    def tables(self) -> list[Table]:
        """Over models; those that every format shows."""
        return [table for table in (self.whole, self.open_questions) if table is not None]


def evidence_part(
    rows: tuple[EvidenceRow, ...], correction: Correction = HOLM, of_data: tuple[NotedTable, ...] = ()
) -> Evidence | None:
    """None where no two methods ran on a same model and nothing is known of the data's part."""
    if not rows:
        return Evidence(rows, "", None, None, None, of_data) if of_data else None
    if max(len(row.comparison.pairs) for row in rows) == 1:
        return Evidence(rows, ONE_MODEL, None, None, None, of_data)
    whole, layers = (shown(rows, is_whole) for is_whole in (True, False))
    return Evidence(
        rows,
        NOTE.format(correction=TITLES[correction]),
        evidence_table(whole, "evidence over models, all node layers"),
        evidence_table(layers, "evidence over models, layer by layer"),
        open_questions(whole),
        of_data,
    )


def shown(rows: Sequence[EvidenceRow], is_whole: bool) -> list[EvidenceRow]:
    """The first method beside each other one, of the whole model or layer by layer."""
    return [row for row in rows if row.method == rows[0].method and row.key.is_whole is is_whole]


def evidence_table(rows: Sequence[EvidenceRow], caption: str) -> Table | None:
    """A row each; None for none. p are corrected where there are layers."""
    corrected = any(row.comparison.n_tests > 1 for row in rows)
    head = ("measure", "methods", "models", "less", "more", "median", "ratio or difference")
    head = (*head, "95 % interval", "p", *(["corrected p"] if corrected else []), "effect", "verdict")
    return Table(caption, head, tuple(evidence_entries(row, corrected) for row in rows), n_left=2) if rows else None


def evidence_entries(row: EvidenceRow, corrected: bool) -> tuple[Entry, ...]:
    """The cells of one row."""
    found = row.comparison
    interval = found.interval
    return (
        *named(row),
        whole(len(found.pairs)),
        whole(found.pairs.n_less),
        whole(found.pairs.n_more),
        Entry(short(found.median_difference), found.median_difference),
        Entry(f"{found.scale} {short(found.estimate)}", found.estimate),
        NOTHING if interval is None else Entry(f"{short(interval.low)} to {short(interval.high)}", interval.low),
        Entry(short(found.p, 2), found.p),
        *([Entry(short(found.corrected_p, 2), found.corrected_p)] if corrected else []),
        NOTHING if found.rank_biserial is None else Entry(short(found.rank_biserial, 2), found.rank_biserial),
        Entry(verdict(row)),
    )


def verdict(row: EvidenceRow) -> str:
    """`decided`, `undecided`, or `equal` where no model differs."""
    if row.comparison.rank_biserial is None:
        return "equal"
    return "decided" if row.comparison.is_decided else "undecided"


def open_questions(rows: Sequence[EvidenceRow]) -> Table | None:
    """How many models would have to be measured, of comparisons that are undecided and not equal everywhere."""
    undecided = [row for row in rows if not row.comparison.is_decided and row.comparison.rank_biserial is not None]
    entries = tuple(
        (
            *named(row),
            whole(len(row.comparison.pairs)),
            whole(row.comparison.fewest_models),
            needed(row.comparison.models_if_all_agree),
            NOTHING if row.comparison.standardized is None else needed(row.comparison.models_at_effect),
        )
        for row in undecided
    )
    head = (
        "undecided",
        "methods",
        "models",
        "fewest that can decide",
        "if all further agree",
        "at the observed effect",
    )
    return Table("models it would take to decide", head, entries, n_left=2) if entries else None


def named(row: EvidenceRow) -> tuple[Entry, Entry]:
    """What is compared and of which methods."""
    return Entry(measure_name(row.key)), Entry(f"{group_label(row.method)}, {group_label(row.against)}")


def measure_name(key: MetricKey) -> str:
    """`edges needed, 0.001`, with its layer where it is of one."""
    kind = key.kind.removeprefix("graph/").replace("/", " ").replace("_", " ")
    tolerance = None if key.tolerance is None else f"{key.tolerance:g}"
    parts = (kind, tolerance, None if key.is_whole else key.layer)
    return ", ".join(part for part in parts if part)


def whole(count: int) -> Entry:
    """A count."""
    return Entry(str(count), count)


def needed(count: int | None) -> Entry:
    """A number of models, or that it is large."""
    return Entry(f"over {MOST:,}", MOST + 1) if count is None else whole(count)


CSV_HEAD = (
    *("setting", "method", "against", "metric", "kind", "tolerance", "layer", "n", "left_out", "n_less", "n_equal"),
    *("n_more", "median_difference", "ratio", "mean_difference", "scale", "low", "high", "interval", "test", "p"),
    *("p_sign", "p_wilcoxon", "corrected_p", "n_tests", "rank_biserial", "decided", "fewest_models"),
    *("models_if_all_agree", "models_at_effect", "half_pairs", "halves_apart", "times_halves", "sentence"),
)


def evidence_csv(by_setting: Iterable[tuple[str, Evidence | None]]) -> str:
    """All rows, each with the title of its setting; what is not there is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for setting, evidence in by_setting:
        writer.writerows([setting, *csv_values(row)] for row in (evidence.rows if evidence else ()))
    return buffer.getvalue()


def csv_values(row: EvidenceRow) -> Iterator[Any]:
    """The columns of `CSV_HEAD` behind the first."""
    found, pairs, interval = row.comparison, row.comparison.pairs, row.comparison.interval
    yield from (row.method, row.against, row.metric, row.key.kind, row.key.tolerance, row.key.layer)
    yield from (len(pairs), pairs.left_out, pairs.n_less, pairs.n_equal, pairs.n_more, found.median_difference)
    yield from (ratio_of_geometric_means(pairs), float(pairs.differences.mean()), found.scale)
    yield from (None, None, None) if interval is None else (interval.low, interval.high, interval.method)
    yield from (found.test, found.p, found.p_sign, found.p_wilcoxon, found.corrected_p, found.n_tests)
    yield from (found.rank_biserial, found.is_decided)
    undecided = not found.is_decided and found.rank_biserial is not None
    numbers = (found.fewest_models, found.models_if_all_agree, found.models_at_effect)
    yield from numbers if undecided else (None, None, None)
    floor = row.floor
    yield from (None,) * 3 if floor is None else (floor.n_pairs, floor.apart, floor.times(found.estimate))
    yield row.sentence
