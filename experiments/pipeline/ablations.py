"""The ablation stage, and `ablations.json`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.config.ablated import ablated
from experiments.config.schema import RunConfig
from experiments.config.scores import ACCURACY, Score
from experiments.config.settings import chain_of
from experiments.pipeline.ablation_progress import ablation_progress
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.cache_entry import StageResult
from experiments.pipeline.console import Advance
from experiments.pipeline.estimate import announce
from experiments.pipeline.metric_keys import plain
from experiments.pipeline.stage_costs import StageCosts, features_of
from libcore.ablation import AblationCurve, ablation_steps, is_within
from libcore.ablation.plan import plan_ablations
from libcore.ablation.steps import carried_out
from libcore.basis import Basis
from libcore.numerical_errors import NumericalError
from models.analysed import AnalysedModel
from models.content_hashes import stage_key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ablations:
    """Scores on the test split by what was kept (FILES.md, `ablations.json`)."""

    test_score: float
    score: Score = ACCURACY
    nodes: dict[str, AblationCurve] = field(default_factory=dict)
    edges: dict[str, AblationCurve] = field(default_factory=dict)


def ablation_stage(
    cache: StageCache,
    config: RunConfig,
    features_identity: str,
    model: AnalysedModel,
    bases: dict[str, Basis],
    edges: dict[str, Tensor],
) -> tuple[FinishedStage, Ablations]:
    """Node ablation of every node layer but the last, and edge ablation of every layer pair with edges.

    Of those that `analysis.ablate` names.
    """
    depends_on = {
        "features": features_identity,
        "edges": sorted(edges),
        "dtype": config.analysis.ablation_dtype,
        "n_test_examples": config.analysis.n_test_examples,
        "tolerances": config.analysis.tolerances,
        "ablate": config.analysis.ablate.model_dump(),
    }
    stage = cache.finish(
        "ablation",
        stage_key(depends_on, ("libcore",)),
        lambda advance: StageResult(values=ablations_to_json(compute_ablations(config, model, bases, edges, advance))),
        left_is="at most",
    )
    return stage, ablations_from_json(stage.result.values)


def compute_ablations(
    config: RunConfig, model: AnalysedModel, bases: dict[str, Basis], edges: dict[str, Tensor], advance: Advance
) -> Ablations:
    """Both ablations on the test split; `advance` is told how far they have come."""
    dtype, budget, tolerances = (
        getattr(torch, config.analysis.ablation_dtype),
        config.analysis.memory_bytes,
        config.analysis.tolerances or (),
    )
    chain = chain_of(model, config, dtype)
    test = model.test.first(config.analysis.n_test_examples)
    bases = {layer: basis.to(dtype=dtype) for layer, basis in bases.items()}
    score = Score(test.score_name, test.lower_is_better)
    which = ablated(config, chain.node_layers)
    costs = StageCosts(config, chain, test.inputs, features_of(chain, bases))
    announce("ablation", lambda: costs.ablation(len(test.inputs), bool(edges)), test.inputs.device)
    with ablation_progress(plan_ablations(chain, bases, edges, tolerances, which), advance) as progress:
        steps = ablation_steps(chain, test, bases, edges, tolerances, budget, which)
        found = carried_out(steps, progress.evaluated)
    ablations = Ablations(found.test_score, score, found.nodes, found.edges)
    if not math.isfinite(ablations.test_score):
        raise NumericalError(f"the model's {score.name} on the test split is {ablations.test_score}")
    warn_of_unreached(ablations)
    return ablations


class Missed(NamedTuple):
    """One curve's tolerances that even everything kept is not within: the needed counts there say nothing.

    A basis that dropped directions the model uses has some.
    """

    kind: str
    layer: str
    kept: int
    score: float
    tolerances: list[float]


def missed_tolerances(ablations: Ablations) -> Iterator[Missed]:
    """Of every curve that has some."""
    for kind, curves in (("features", ablations.nodes), ("edges", ablations.edges)):
        for layer, curve in curves.items():
            if (kept := max(curve.score_by_kept, default=None)) is None:
                continue
            score, of_model = curve.score_by_kept[kept], ablations.test_score
            tolerances = [
                tolerance
                for tolerance, needed in curve.needed.items()
                if needed >= kept and not is_within(score, of_model, tolerance, ablations.score.lower_is_better)
            ]
            if tolerances:
                yield Missed(kind, layer, kept, score, tolerances)


def warn_of_unreached(ablations: Ablations) -> None:
    """A line of the log for each curve."""
    for missed in missed_tolerances(ablations):
        log.warning(
            "%s: with all %d %s the score is %.4f, not within %s of %.4f: the needed count says nothing there",
            missed.layer,
            missed.kept,
            missed.kind,
            missed.score,
            plain(max(missed.tolerances)),
            ablations.test_score,
        )


def ablations_to_json(ablations: Ablations) -> dict[str, Any]:
    """The content of `ablations.json`; keys are strings, tolerances plain numbers."""

    def scores(curves: dict[str, AblationCurve]) -> dict[str, dict[str, float]]:
        return {
            layer: {str(kept): score for kept, score in sorted(curve.score_by_kept.items(), reverse=True)}
            for layer, curve in curves.items()
        }

    def needed(curves: dict[str, AblationCurve]) -> dict[str, dict[str, int]]:
        return {
            layer: {plain(tolerance): n for tolerance, n in curve.needed.items()} for layer, curve in curves.items()
        }

    return {
        "test_score": ablations.test_score,
        "score": asdict(ablations.score),
        "node_ablation": scores(ablations.nodes),
        "edge_ablation": scores(ablations.edges),
        "edges_needed": needed(ablations.edges),
        "nodes_needed": needed(ablations.nodes),
    }


def ablations_from_json(content: dict[str, Any]) -> Ablations:
    """The inverse of `ablations_to_json`."""

    def curves(
        scores: dict[str, dict[str, float | None]], needed: dict[str, dict[str, int]]
    ) -> dict[str, AblationCurve]:
        return {
            layer: AblationCurve(
                # What JSON has no word for is written as null: a score that overflowed.
                {int(kept): math.nan if score is None else score for kept, score in by_kept.items()},
                {float(tolerance): n for tolerance, n in needed[layer].items()},
            )
            for layer, by_kept in scores.items()
        }

    return Ablations(
        content["test_score"],
        Score(**content["score"]) if "score" in content else ACCURACY,
        curves(content["node_ablation"], content["nodes_needed"]),
        curves(content["edge_ablation"], content["edges_needed"]),
    )
