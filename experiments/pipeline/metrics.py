"""A run's numbers under the keys of FILES.md: what `metrics.json` holds and W&B shows as the run's summary."""

from __future__ import annotations

from typing import Any

from experiments.config.schema import RunConfig
from experiments.pipeline.ablation_area import ablation_area
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.metric_keys import TOTAL, plain, tolerance_of
from experiments.pipeline.resampling import NeededIntervals
from experiments.pipeline.resources import Resources
from libcore.basis import Basis
from libcore.graph import InteractionGraph
from libcore.modularity import Communities
from libcore.sparsity import gini, hoyer, mass_share, participation_ratio

Metrics = dict[str, float | int]

MEASURES = {"hoyer": hoyer, "gini": gini, "participation": participation_ratio, "mass99": mass_share}


def feature_metrics(bases: dict[str, Basis]) -> Metrics:
    """Kept features of every node layer, the constant included."""
    return {f"features/kept/{layer}": basis.n_features for layer, basis in bases.items()}


IDENTIFICATION = {
    "condition": None,
    "identified": "rounding",
    "identified_in_groups": "rounding",
    "kept_again": "rounding",
    "found_in_halves": "halves",
}
"""What is told of how sure features are, and which of `analysis.identify_by` tells it."""


def identification_names(config: RunConfig) -> list[str]:
    """Which of them the configuration asks for."""
    return [name for name, by in IDENTIFICATION.items() if by is None or by in config.identify_by]


def identification_metrics(found: dict[str, dict[str, Any]]) -> Metrics:
    """How sure features are, as far as that was looked at; counts of them include the constant."""
    return {
        f"features/{name}/{layer}": of_layer[name]
        for layer, of_layer in found.items()
        for name in IDENTIFICATION
        if name in of_layer
    }


def ablation_metrics(ablations: Ablations) -> Metrics:
    """Needed features and edges at every tolerance; totals are over all node layers and all layer pairs."""
    metrics: Metrics = {}
    for kind, curves in (("features", ablations.nodes), ("edges", ablations.edges)):
        totals: dict[float, int] = {}
        for layer, curve in curves.items():
            metrics |= {f"{kind}/needed_{plain(tolerance)}/{layer}": n for tolerance, n in curve.needed.items()}
            for tolerance, n in curve.needed.items():
                totals[tolerance] = totals.get(tolerance, 0) + n
        metrics |= {f"{kind}/needed_{plain(tolerance)}/total": n for tolerance, n in totals.items()}
    return metrics


def interval_metrics(intervals: NeededIntervals) -> Metrics:
    """Both ends of every needed count's interval over test examples; NaN where there is none."""
    return {
        f"{kind}/needed_{end}_{plain(tolerance)}/{layer}": value
        for kind, by_layer in intervals.items()
        for layer, by_tolerance in by_layer.items()
        for tolerance, ends in by_tolerance.items()
        for end, value in zip(("low", "high"), ends, strict=True)
    }


def area_metrics(ablations: Ablations, graph: InteractionGraph) -> Metrics:
    """Areas under the ablation curves, with their sums over node layers and over layer pairs."""
    score, metrics = ablations.score, Metrics()
    widths = {layer: basis.d for layer, basis in graph.bases.items()}
    n_edges = {layer: widths[layer] * widths[next_layer] for layer, next_layer in graph.pairs()}
    for kind, curves, n_all in (("features", ablations.nodes, widths), ("edges", ablations.edges, n_edges)):
        areas = {
            layer: ablation_area(curve, n_all[layer], ablations.test_score, score.lower_is_better)
            for layer, curve in curves.items()
            if curve.score_by_kept
        }
        metrics |= {f"{kind}/ablation_area/{layer}": area for layer, area in areas.items()}
        if areas:
            metrics[f"{kind}/ablation_area/{TOTAL}"] = sum(areas.values())
    return metrics


def sparsity_metrics(graph: InteractionGraph) -> Metrics:
    """Sparsity of every layer pair's edges among features that vary."""
    return {
        f"edges/{name}/{layer}": measure(graph.variable_edges(layer))
        for layer, _ in graph.pairs()
        for name, measure in MEASURES.items()
    }


def community_metrics(communities: Communities) -> Metrics:
    """How modular the graph is."""
    return {"graph/modularity": communities.modularity, "graph/communities": communities.count}


def resource_metrics(stage: str, resources: Resources) -> Metrics:
    """Seconds and bytes of a stage, as they were when it was computed."""
    return {f"time/{stage}": resources.seconds, f"memory/{stage}": resources.peak_memory}


def aliases(metrics: Metrics) -> Metrics:
    """The numbers that runs are sorted and filtered by, under plain names; needed counts at the tightest tolerance."""
    named = {"test_score": "score/test", "train_score": "score/train", "modularity": "graph/modularity"}
    found = {alias: metrics[key] for alias, key in named.items() if key in metrics}
    for kind in ("features", "edges"):
        tolerances = {name: tolerance_of(name, kind) for name in metrics if name.endswith(f"/{TOTAL}")}
        totals = {tolerance: metrics[name] for name, tolerance in tolerances.items() if tolerance is not None}
        if totals:
            found[f"{kind}_needed_total"] = totals[min(totals)]
    if kept := [n for key, n in metrics.items() if key.startswith("features/kept/")]:
        found["features_kept_total"] = sum(kept)
    if seconds := [taken for key, taken in metrics.items() if key.startswith("time/")]:
        found["seconds_total"] = sum(seconds)
    return found
