"""Every measure of every two methods that ran on the same models, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from experiments.config.scores import Score
from experiments.evidence.comparison import PairedComparison, compared, corrected
from experiments.evidence.corrections import HOLM, Correction
from experiments.evidence.noise_floor import NoiseFloor
from experiments.evidence.sentences import sentence
from experiments.figures.groups import group_label, group_order
from experiments.pipeline.metric_keys import TOTAL, MetricKey, in_order, parse_metric
from experiments.reporting.evidence_measures import MEASURES
from experiments.reporting.evidence_pairs import (
    RunsByModel,
    ValueOf,
    by_model,
    floor_of,
    metric_pairs,
    reached_values,
)
from experiments.reporting.finished_runs import FinishedRun


@dataclass(frozen=True)
class EvidenceRow:
    """One metric of two methods of one setting.

    Attributes:
        method: the first; LIB, wherever it is one of the two.
        against: the second.
        tolerated: the worst score within the tolerance, in words; empty for what is no needed count.
        floor: how far two halves of the data are apart; None where no run has another on the other half.
    """

    method: str
    against: str
    metric: str
    key: MetricKey
    comparison: PairedComparison
    tolerated: str
    floor: NoiseFloor | None = None

    @property
    def claim(self) -> str:
        """What was found, of which model's part it is left out."""
        wording = MEASURES[self.key.kind].wording
        found = sentence(self.comparison, group_label(self.method), group_label(self.against), wording)
        return f"{found} {self.floor_sentence}".rstrip()

    @property
    def floor_sentence(self) -> str:
        """The difference against what halves of the data differ by; empty where that is not known."""
        return "" if self.floor is None else self.floor.sentence(self.comparison)

    @property
    def sentence(self) -> str:
        """What was found, and of which layer at which tolerance."""
        where = "over all node layers" if self.key.layer == TOTAL else self.key.layer
        place = ", ".join(part for part in (where, self.tolerated) if part)
        return f"{place}: {self.claim}" if place else self.claim


def evidence_of(runs: Sequence[FinishedRun], score: Score, correction: Correction = HOLM) -> tuple[EvidenceRow, ...]:
    """Of the runs of one setting, pairs of methods in the tables' order, the first of them LIB where there is one."""
    methods = sorted({run.method for run in runs}, key=group_order)
    if len(methods) < 2:
        return ()
    value_of = reached_values(runs)
    of_method = {method: by_model(run for run in runs if run.method == method) for method in methods}
    names = compared_names(runs)
    return tuple(
        row for pair in combinations(methods, 2) for row in rows_of(pair, of_method, names, score, value_of, correction)
    )


def compared_names(runs: Sequence[FinishedRun]) -> list[str]:
    """Metrics that methods are compared by, in the order of the tables."""
    names = {name for run in runs for name in run.metrics if parse_metric(name).kind in MEASURES}
    return sorted(in_order(names), key=lambda name: list(MEASURES).index(parse_metric(name).kind))


def rows_of(
    methods: tuple[str, str],
    of_method: Mapping[str, RunsByModel],
    names: Sequence[str],
    score: Score,
    value_of: ValueOf,
    correction: Correction,
) -> list[EvidenceRow]:
    """Of two methods; p are corrected over the layers of one measure at one tolerance, those of totals are not."""
    method, against = methods
    families: dict[tuple[str, float | None, bool], list[EvidenceRow]] = {}
    for name in names:
        key = parse_metric(name)
        pairs = metric_pairs(of_method[method], of_method[against], name, value_of)
        if not len(pairs):
            continue
        tolerated = "" if key.tolerance is None else score.tolerated(key.tolerance)
        comparison = compared(pairs, MEASURES[key.kind].scale)
        floor = floor_of((of_method[method], of_method[against]), name, value_of, comparison.scale)
        row = EvidenceRow(method, against, name, key, comparison, tolerated, floor)
        families.setdefault((key.kind, key.tolerance, row.key.is_whole), []).append(row)
    return [row for family in families.values() for row in with_correction(family, correction)]


def with_correction(family: Sequence[EvidenceRow], correction: Correction) -> list[EvidenceRow]:
    """The same rows, their p corrected for each other."""
    comparisons = corrected([row.comparison for row in family], correction)
    return [replace(row, comparison=one) for row, one in zip(family, comparisons, strict=True)]
