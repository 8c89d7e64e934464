"""From a trained model to all that is found of it: statistics, bases, edges, ablations, communities and names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from experiments.config.schema import RunConfig
from experiments.config.settings import quadrature_of
from experiments.pipeline.ablations import Ablations, ablation_stage
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.console import progress_of
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from experiments.pipeline.metrics import (
    Metrics,
    ablation_metrics,
    community_metrics,
    feature_metrics,
    resource_metrics,
    sparsity_metrics,
)
from experiments.pipeline.resources import Resources
from experiments.pipeline.stages import basis_stage, edges_stage, error_metrics, statistics_stage, watched
from experiments.pipeline.tracking import Tracker
from libcore.ablation import smallest_kept_edge
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators.signed import SignedEdges, chain_signed_edges
from libcore.graph import InteractionGraph
from libcore.modularity import Communities, find_communities
from models.analysed import AnalysedModel, FeaturePicture, TokenContexts


@dataclass
class RunResults:
    """What a run has found so far; stages that the configuration leaves out stay empty.

    Attributes:
        timings: seconds and peak memory of every stage when it was computed, and whether this run found it done.
    """

    tracker: Tracker
    graph: InteractionGraph | None = None
    ablations: Ablations | None = None
    communities: Communities | None = None
    table: FeatureTable | None = None
    pictures: dict[str, list[FeaturePicture]] | None = None
    contexts: TokenContexts | None = None
    signed: dict[str, SignedEdges] | None = None
    metrics: Metrics = field(default_factory=dict)
    timings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ended(self, stage: str, resources: Resources, metrics: Metrics, reused: bool = False) -> None:
        """Take down what a stage has found and taken."""
        found = metrics | resource_metrics(stage, resources)
        self.metrics |= found
        self.timings[stage] = vars(resources) | {"reused": reused}
        self.tracker.stage(found)

    def finished(self, stage: str, finished: FinishedStage, metrics: Metrics | None = None) -> None:
        """The same of a stage that is kept."""
        self.ended(stage, finished.resources, metrics or {}, finished.reused)


def analyse(
    results: RunResults,
    config: RunConfig,
    cache: StageCache,
    model_key: str,
    model: AnalysedModel,
    header: dict[str, str],
) -> None:
    """Statistics, bases, edges, ablations, communities and labels, as far as the configuration has them.

    `header` is what the graph's file says of its origin.
    """
    wanted, chain = config.analysis.stages, model.chain(getattr(torch, config.dtype))
    if wanted == ["score"]:
        return
    inputs = model.fit_inputs(config.analysis.n_examples, config.analysis.half)
    summed, statistics = statistics_stage(cache, config, model_key, chain, inputs)
    results.finished("statistics", summed)
    if "basis" not in wanted:
        return
    fitted, bases = basis_stage(cache, config, summed.key, chain, inputs, statistics)
    results.finished("basis", fitted, feature_metrics(bases) | error_metrics("basis", fitted))
    edges: dict[str, Tensor] = {}
    last = fitted
    if "edges" in wanted:
        last, edges = edges_stage(cache, config, fitted.key, chain, inputs, bases)
    graph = results.graph = on_cpu(InteractionGraph(chain.node_layers, statistics, bases, edges, header))
    if "edges" in wanted:
        results.finished("edges", last, sparsity_metrics(graph) | error_metrics("edges", last))
    if "ablation" in wanted:
        ablated, results.ablations = ablation_stage(cache, config, last.key, model, bases, edges)
        results.finished("ablation", ablated, ablation_metrics(results.ablations))
        results.tracker.ablations(results.ablations)
    if edges and "figures" in wanted:
        with progress_of("signs of edges") as advance:
            observed = watched(chain, advance, len(chain.sections))
            budget = config.analysis.memory_bytes
            results.signed = chain_signed_edges(observed, inputs, bases, quadrature_of(config), budget)
    describe(results, config, graph, model, chain, bases)


def describe(
    results: RunResults,
    config: RunConfig,
    graph: InteractionGraph,
    model: AnalysedModel,
    chain: Chain,
    bases: dict[str, Basis],
) -> None:
    """Communities, names, and what features respond to."""
    with progress_of("names and examples of features"):
        labels = model.label_features(chain, bases)
        membership = {layer: [NO_COMMUNITY] * basis.n_features for layer, basis in bases.items()}
        if graph.edges:
            results.communities = communities_of(config, graph, results.ablations)
            results.metrics |= community_metrics(results.communities)
            membership = results.communities.membership
        results.table = FeatureTable(labels, membership)
        if "figures" in config.analysis.stages and model.picture_features is not None:
            results.pictures = model.picture_features(chain, bases)
        if "figures" in config.analysis.stages and model.token_contexts is not None:
            results.contexts = model.token_contexts(chain, bases)


def communities_of(config: RunConfig, graph: InteractionGraph, ablations: Ablations | None) -> Communities:
    """Leiden with the configured edge weight; `auto` is `log` where an ablation says which edges were needed."""
    settings = config.analysis.communities
    weight = settings.edge_weight
    if weight == "auto":
        weight = "log" if ablations is not None else "sqrt"
    smallest: dict[str, float] = {}
    if weight == "log" and ablations is not None:
        tightest = min(config.analysis.tolerances or ())
        for layer, curve in ablations.edges.items():
            kept, constant = curve.needed[tightest], graph.bases[layer].has_constant
            smallest[layer] = smallest_kept_edge(graph.edges[layer], kept, constant)
    return find_communities(graph, weight, smallest, settings.resolution, settings.seed)


def on_cpu(graph: InteractionGraph) -> InteractionGraph:
    """The graph for files, figures and communities."""
    cpu = torch.device("cpu")
    return InteractionGraph(
        graph.node_layers,
        {name: replace(one, mean=one.mean.cpu(), gram=one.gram.cpu()) for name, one in graph.statistics.items()},
        {name: basis.to(device=cpu) for name, basis in graph.bases.items()},
        {name: strength.cpu() for name, strength in graph.edges.items()},
        graph.metadata,
    )
