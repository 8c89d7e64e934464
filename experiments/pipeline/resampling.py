"""The resampling stage: intervals of needed counts over test examples, model and bases as they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from experiments.config.ablated import ablated
from experiments.config.schema import RunConfig
from experiments.config.settings import chain_of
from experiments.pipeline.ablation_progress import ablation_progress
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.cache_entry import StageResult
from experiments.pipeline.console import Advance
from experiments.pipeline.metric_keys import TOTAL, plain
from libcore.ablation.resampled_needs import plan_resampling, resampling_steps, totals
from libcore.ablation.sampling_error import NeededByResample, central_interval
from libcore.ablation.steps import carried_out
from libcore.basis import Basis
from models.analysed import AnalysedModel
from models.content_hashes import stage_key

Ends = tuple[int | float, int | float]
NeededIntervals = dict[str, dict[str, dict[float, Ends]]]
"""`features` and `edges`, by node layer or `total`, by tolerance: both ends, NaN where even everything kept is not
within tolerance on too many of the resamples."""


def resampling_stage(
    cache: StageCache,
    config: RunConfig,
    ablation_identity: str,
    model: AnalysedModel,
    bases: dict[str, Basis],
    edges: dict[str, Tensor],
    ablations: Ablations,
) -> tuple[FinishedStage, NeededIntervals]:
    """95 % intervals of all needed counts of the ablation, and of their totals."""

    def compute(advance: Advance) -> StageResult:
        return StageResult(values=intervals_to_json(compute_intervals(config, model, bases, edges, ablations, advance)))

    depends_on = {"ablation": ablation_identity, "resamples": config.analysis.resamples}
    stage = cache.finish("resampling", stage_key(depends_on, ("libcore",)), compute, left_is="at most")
    return stage, intervals_from_json(stage.result.values)


def compute_intervals(
    config: RunConfig,
    model: AnalysedModel,
    bases: dict[str, Basis],
    edges: dict[str, Tensor],
    ablations: Ablations,
    advance: Advance,
) -> NeededIntervals:
    """On the ablation's own test examples, in its dtype; `advance` is told how far it has come."""
    dtype, tolerances = getattr(torch, config.analysis.ablation_dtype), config.analysis.tolerances or ()
    chain = chain_of(model, config, dtype)
    which = ablated(config, chain.node_layers)
    test = model.test.first(config.analysis.n_test_examples)
    bases = {layer: basis.to(dtype=dtype) for layer, basis in bases.items()}
    with ablation_progress(
        plan_resampling(chain, bases, edges, len(tolerances), which), advance, "resampling"
    ) as progress:
        steps = resampling_steps(
            chain,
            test,
            bases,
            edges,
            ablations.edges,
            tolerances,
            config.analysis.resamples,
            config.analysis.memory_bytes,
            which=which,
        )
        found = carried_out(steps, progress.evaluated)
    return {"features": intervals_of(found.nodes), "edges": intervals_of(found.edges)}


def intervals_of(curves: dict[str, NeededByResample]) -> dict[str, dict[float, Ends]]:
    """Of every curve, and of the sum of all."""
    with_total = {**curves, TOTAL: totals(curves)} if curves else {}
    return {
        layer: {tolerance: finite_ends(central_interval(needed)) for tolerance, needed in by_tolerance.items()}
        for layer, by_tolerance in with_total.items()
    }


def finite_ends(ends: tuple[float, float]) -> Ends:
    """Whole numbers; NaN for an end that is beyond everything kept."""
    low, high = (int(end) if math.isfinite(end) else math.nan for end in ends)
    return low, high


def intervals_to_json(intervals: NeededIntervals) -> dict[str, Any]:
    """Tolerances as plain numbers, null where there is no end."""
    return {
        kind: {
            layer: {
                plain(tolerance): [None if math.isnan(end) else end for end in ends]
                for tolerance, ends in by_tolerance.items()
            }
            for layer, by_tolerance in by_layer.items()
        }
        for kind, by_layer in intervals.items()
    }


def intervals_from_json(content: dict[str, Any]) -> NeededIntervals:
    """The inverse of `intervals_to_json`."""
    return {
        kind: {
            layer: {
                float(tolerance): (math.nan if low is None else low, math.nan if high is None else high)
                for tolerance, (low, high) in by_tolerance.items()
            }
            for layer, by_tolerance in by_layer.items()
        }
        for kind, by_layer in content.items()
    }
