"""A run's numbers under the keys of FILES.md: what `metrics.json` holds and W&B shows as the run's summary."""

from __future__ import annotations

from experiments.pipeline.ablations import Ablations, plain
from experiments.pipeline.cache import FinishedStage
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


def ablation_metrics(ablations: Ablations) -> Metrics:
    """Needed features and edges at every tolerance; the total is over all layer pairs."""
    metrics: Metrics = {}
    for layer, curve in ablations.nodes.items():
        metrics |= {f"features/needed_{plain(tolerance)}/{layer}": n for tolerance, n in curve.needed.items()}
    totals: dict[float, int] = {}
    for layer, curve in ablations.edges.items():
        metrics |= {f"edges/needed_{plain(tolerance)}/{layer}": n for tolerance, n in curve.needed.items()}
        for tolerance, n in curve.needed.items():
            totals[tolerance] = totals.get(tolerance, 0) + n
    return metrics | {f"edges/needed_{plain(tolerance)}/total": n for tolerance, n in totals.items()}


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


def resource_metrics(stages: dict[str, FinishedStage], others: dict[str, Resources]) -> Metrics:
    """Seconds and bytes of every stage, as they were when it was computed."""
    taken = {name: stage.resources for name, stage in stages.items()} | others
    return {f"time/{name}": resources.seconds for name, resources in taken.items()} | {
        f"memory/{name}": resources.peak_memory for name, resources in taken.items()
    }
