"""What finished runs show of one claim: an outcome for each metric, and a sentence that says as much and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.evidence.comparison import PairedComparison, compared, corrected
from experiments.evidence.pairs import Pairs
from experiments.evidence.sentences import sentence, short
from experiments.figures.groups import group_label
from experiments.pipeline.metric_keys import TOTAL, parse_metric
from experiments.reporting.evidence_measures import MEASURES, Measure, counted
from experiments.reporting.evidence_pairs import by_model, metric_pairs, reached_values
from experiments.reporting.finished_runs import FinishedRun
from experiments.reproduction.claims import ByBand, ByDirection, BySameWeights, Claim
from experiments.reproduction.verdicts import (
    Outcome,
    Verdict,
    outcome_of_band,
    outcome_of_direction,
    outcome_of_value,
    verdict_of,
)

KEPT = counted("keeps {} features")
"""Features kept: no measure of the reports' evidence, since the cut lies in round-off, but the paper's claim."""
NO_VALUE = "no model with a value"


@dataclass(frozen=True)
class Finding:
    """A claim's verdict, and ours beside the paper's number: a sentence for each metric."""

    verdict: Verdict
    ours: tuple[str, ...]


def finding_of(claim: Claim, runs: Sequence[FinishedRun]) -> Finding:
    """Of the runs of the claim's experiment."""
    how = claim.compared
    if isinstance(how, BySameWeights):
        return by_same_weights(claim.metrics[0], how, runs)
    return by_models(claim.metrics, how, runs)


def by_same_weights(metric: str, how: BySameWeights, runs: Sequence[FinishedRun]) -> Finding:
    """Each of the paper's networks that was run: our number in the order of its own."""
    value_of = reached_values(runs)
    found = {run.seed: value_of(run, metric) for run in runs if run.method == how.method}
    ours = {seed: float(value) for seed in how.values if (value := found.get(seed)) is not None}
    outcomes: list[Outcome] = [
        outcome_of_value(value, how.values[seed], how.relative_tolerance) for seed, value in ours.items()
    ]
    texts = ", ".join(f"{short(value)} (seed {seed})" for seed, value in ours.items())
    others = ", ".join(str(seed) for seed in how.values if seed not in ours)
    not_run = f"; not run: seed {others}" if others else ""
    return Finding(verdict_of(outcomes) if outcomes else "undecided", (f"{texts or NO_VALUE}{not_run}.",))


def by_models(metrics: Sequence[str], how: ByDirection | ByBand, runs: Sequence[FinishedRun]) -> Finding:
    """Both methods on the same models; p are corrected over the claim's metrics."""
    ours, theirs = (by_model(run for run in runs if run.method == method) for method in (how.method, how.against))
    value_of = reached_values(runs)
    pairs = {metric: metric_pairs(ours, theirs, metric, value_of) for metric in metrics}
    with_pairs = [metric for metric in metrics if len(pairs[metric])]
    family = corrected([compared(pairs[metric], measure_of(metric).scale) for metric in with_pairs])
    comparisons = dict(zip(with_pairs, family, strict=True))
    outcomes: list[Outcome] = [outcome_of(comparisons.get(metric), how, measure_of(metric)) for metric in metrics]
    sentences = (said(metric, comparisons.get(metric), how, len(metrics) > 1) for metric in metrics)
    return Finding(verdict_of(outcomes), tuple(sentences))


def measure_of(metric: str) -> Measure:
    """How a metric is compared and spoken of; KeyError for one that no claim can be about."""
    kind = parse_metric(metric).kind
    return KEPT if kind == "features/kept" else MEASURES[kind]


def outcome_of(comparison: PairedComparison | None, how: ByDirection | ByBand, measure: Measure) -> Outcome:
    """Undecided without a common model, or where a ratio was asked for and a value is zero."""
    if comparison is None:
        return "undecided"
    if isinstance(how, ByDirection):
        return outcome_of_direction(comparison, how.direction)
    return outcome_of_band(comparison, how.value, how.tolerance) if comparison.scale == measure.scale else "undecided"


def said(metric: str, comparison: PairedComparison | None, how: ByDirection | ByBand, one_of_several: bool) -> str:
    """Means of both methods and the evidence's sentence, of several metrics with what it is about."""
    key = parse_metric(metric)
    where = "in total" if key.layer == TOTAL else key.layer
    parts = [part for part in (where, f"within {key.tolerance:g}" if key.tolerance is not None else None) if part]
    place = f"{', '.join(parts)}: " if one_of_several else ""
    if comparison is None:
        return f"{place}{NO_VALUE}."
    ours, theirs = group_label(how.method), group_label(how.against)
    measure = measure_of(metric)
    claim = sentence(comparison, ours, theirs, measure.wording, family="metrics of the claim")
    return f"{place}{means(comparison.pairs, ours, theirs)}{claim}"


def means(pairs: Pairs, ours: str, theirs: str) -> str:
    """`LIB 681, PCA 737 (means). `; nothing of one model, whose values the sentence has."""
    if len(pairs) == 1:
        return ""
    return f"{ours} {short(fmean(pairs.ours))}, {theirs} {short(fmean(pairs.theirs))} (means). "
