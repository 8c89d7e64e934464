"""What a sweeper minimises or maximises: a metric's key, checked before the first run, its direction by its kind."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal

from experiments.config.schema import RunConfig
from experiments.pipeline.metric_keys import plain
from experiments.pipeline.metrics import MEASURES, identification_names
from experiments.sweeps.record import Job
from libcore.names import nearest
from models.errors import UserError
from models.room import Room

Direction = Literal["minimize", "maximize"]
LARGER_IS_BETTER = ("score/", "edges/hoyer/", "edges/gini/", "graph/modularity")
"""Of a metric's key, its beginning; a cross-entropy is a score that is better smaller. Fewer of all else is better."""


FOLLOWING = {
    "identification": {"basis"},
    "signs": {"edges", "figures"},
    "examples": {"basis", "figures"},
}
"""Stages that nobody asks for by name, and those that they come with."""


def direction_of(objective: str, lower_score_is_better: bool) -> Direction:
    """Which way is better, by the metric's kind."""
    if objective.startswith("score/") and lower_score_is_better:
        return "minimize"
    return "maximize" if objective.startswith(LARGER_IS_BETTER) else "minimize"


def check_objective(config: RunConfig, room: Room[Any]) -> None:
    """Raises UserError for a key that this run's `metrics.json` would not have."""
    known = metric_keys(config, room)
    if config.objective is not None and config.objective not in known:
        raise UserError(
            f"objective={config.objective}: the run has no such metric{nearest(config.objective, known)}; expected a "
            "key of its metrics.json, such as edges/needed_0.001/total"
        )


def metric_keys(config: RunConfig, room: Room[Any]) -> list[str]:
    """The keys of `metrics.json` that the configuration asks for; `config` has its tolerances."""
    stages, layers = config.analysis.stages, room.node_layers
    tolerances = [plain(tolerance) for tolerance in config.analysis.tolerances or ()]
    timed = ["model", *(["data"] if room.reads_data else []), *(["statistics"] if stages != ["score"] else [])]
    timed += [stage for stage in stages if stage != "labels"] + (["names"] if config.analysis.names_features else [])
    timed += [stage for stage, of in FOLLOWING.items() if of <= set(stages)]
    timed += ["resampling"] if config.analysis.resamples else []
    keys = [f"{what}/{stage}" for what in ("time", "memory") for stage in timed]
    if "score" in stages:
        keys += ["score/train", "score/test"]
    if "basis" in stages:
        keys += [f"features/{name}/{layer}" for name in ("kept", *identification_names(config)) for layer in layers]
    if "edges" in stages:
        keys += [f"edges/{measure}/{layer}" for measure in (*MEASURES, "completeness") for layer in layers[:-1]]
        keys += ["graph/modularity", "graph/communities"]
    ablated = {"features": "ablation" in stages, "edges": {"edges", "ablation"} <= set(stages)}
    for kind in (kind for kind, is_ablated in ablated.items() if is_ablated):
        needed = ["needed", *(("needed_low", "needed_high") if config.analysis.resamples else ())]
        ablated_layers = (*layers[:-1], "total")
        keys += [f"{kind}/{of}_{at}/{layer}" for of in needed for at in tolerances for layer in ablated_layers]
        if kind == "features" or tolerances:
            keys += [f"{kind}/ablation_area/{layer}" for layer in ablated_layers]
    if config.analysis.estimator == "stochastic":
        keys += [f"estimator/{stage}_error/{layer}" for stage in ("basis", "edges") for layer in layers[:-1]]
    return keys


def best_of(jobs: Sequence[Job], direction: Direction) -> Job | None:
    """The job whose objective is best, the earliest of equals; None where none has one."""
    valued = [job for job in jobs if job.objective is not None and isfinite(job.objective)]
    sign = -1 if direction == "maximize" else 1
    return min(valued, key=lambda job: sign * (job.objective or 0.0), default=None)
