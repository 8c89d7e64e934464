"""Runs of two methods on the same models, as pairs of values: what counts as one model, and as a value of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from experiments.evidence.comparison import Scale
from experiments.evidence.noise_floor import NoiseFloor, noise_floor
from experiments.evidence.pairs import Pairs, finite, paired
from experiments.pipeline.ablations import Ablations, missed_tolerances
from experiments.pipeline.metric_keys import TOTAL, plain
from experiments.reporting.finished_runs import FinishedRun

RunsByModel = dict[tuple[Hashable, str], FinishedRun]
ValueOf = Callable[[FinishedRun, str], float | int | None]
"""A metric's value of a run; None where it says nothing."""


def model_of(run: FinishedRun) -> Hashable:
    """Equal for runs of one setting that are of the same weights: those of one checkpoint, else of one seed.

    A pretrained model stays the same whatever the seed.
    """
    if run.model == "pretrained_transformer":
        return "pretrained"
    return run.config["model"].get("checkpoint") or run.seed


def by_model(runs: Iterable[FinishedRun]) -> RunsByModel:
    """Runs of one method of one setting by their model, and by what tells runs of one model apart."""
    return {(model_of(run), run.label): run for run in runs}


def metric_pairs(ours: RunsByModel, theirs: RunsByModel, name: str, value_of: ValueOf) -> Pairs:
    """Values of one metric, a pair for each model: means over the runs (halves of the data) that both methods have."""
    mine, others = ({key: value_of(run, name) for key, run in runs.items()} for runs in (ours, theirs))
    mine, others = finite(mine), finite(others)
    common: dict[Hashable, list[tuple[Hashable, str]]] = {}
    for key in mine:
        if key in others:
            common.setdefault(key[0], []).append(key)
    left_out = {model for model, _ in (*mine, *others)} - common.keys()
    means = [{model: fmean(values[key] for key in keys) for model, keys in common.items()} for values in (mine, others)]
    return replace(paired(*means), left_out=len(left_out))


def floor_of(methods: Sequence[RunsByModel], name: str, value_of: ValueOf, scale: Scale) -> NoiseFloor | None:
    """Of one metric, over all models of these methods that have a run on either half."""
    pairs: list[tuple[float, float]] = []
    for runs in methods:
        values: dict[object, dict[str, float]] = {}
        for run in runs.values():
            value = value_of(run, name)
            if run.half is not None and value is not None:
                values.setdefault((model_of(run), run.seed), {})[run.half] = float(value)
        pairs += [(of["first"], of["second"]) for of in values.values() if len(of) == 2]
    return noise_floor(pairs, scale)


def reached_values(runs: Sequence[FinishedRun]) -> ValueOf:
    """Metrics as they are, but for needed counts where even all that is kept is not within tolerance: None."""
    missed = {id(run): unreached(ablations) for run in runs if (ablations := run.ablations()) is not None}

    def value_of(run: FinishedRun, name: str) -> float | int | None:
        return None if name in missed.get(id(run), ()) else run.metrics.get(name)

    return value_of


def unreached(ablations: Ablations) -> set[str]:
    """Keys of needed counts that say nothing, with those of the totals they are part of."""
    return {
        f"{missed.kind}/needed_{plain(tolerance)}/{where}"
        for missed in missed_tolerances(ablations)
        for tolerance in missed.tolerances
        for where in (missed.layer, TOTAL)
    }
