"""From a trained model to all that is found of it: statistics, bases, edges, ablations, communities and names."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from experiments.config.schema import RunConfig
from experiments.config.settings import chain_of
from experiments.pipeline.ablations import Ablations, ablation_stage
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.console import progress_of
from experiments.pipeline.feature_table import FeatureTable
from experiments.pipeline.identification import identification_stage
from experiments.pipeline.metrics import (
    Metrics,
    ablation_metrics,
    area_metrics,
    community_metrics,
    feature_metrics,
    identification_metrics,
    interval_metrics,
    resource_metrics,
    sparsity_metrics,
)
from experiments.pipeline.names import names_stage
from experiments.pipeline.resampling import resampling_stage
from experiments.pipeline.resources import Resources, measured
from experiments.pipeline.stages import basis_stage, edges_stage, error_metrics, signs_stage, statistics_stage
from experiments.pipeline.tracking import Tracker
from libcore import processes
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators.signed import SignedEdges
from libcore.graph import InteractionGraph
from libcore.modularity import Communities
from models.analysed import AnalysedModel, FeaturePicture, TokenContexts

log = logging.getLogger(__name__)


@dataclass
class RunResults:
    """What a run has found so far; stages that the configuration leaves out stay empty.

    Attributes:
        timings: seconds and peak memory of every stage when it was computed, and whether this run found it done.
        entries: `<stage>/<key>` of every stage that is kept, as the cache has it.
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
    entries: list[str] = field(default_factory=list)

    def ended(self, stage: str, resources: Resources, metrics: Metrics, reused: bool = False) -> None:
        """Take down what a stage has found and taken."""
        found = metrics | resource_metrics(stage, resources)
        self.metrics |= found
        self.timings[stage] = vars(resources) | {"reused": reused}
        self.tracker.stage(found)

    def finished(self, stage: str, finished: FinishedStage, metrics: Metrics | None = None) -> None:
        """The same of a stage that is kept."""
        self.entries.append(f"{stage}/{finished.key}")
        self.ended(stage, finished.resources, metrics or {}, finished.reused)


def analyse(
    results: RunResults,
    config: RunConfig,
    cache: StageCache,
    model_identity: str,
    model: AnalysedModel,
    header: dict[str, str],
) -> None:
    """Statistics, bases, edges, ablations, communities and labels, as far as the configuration has them.

    `header` is what the graph's file says of its origin.
    """
    wanted, chain = config.analysis.stages, chain_of(model, config, getattr(torch, config.dtype))
    if wanted == ["score"]:
        return
    inputs = model.fit_inputs(config.analysis.n_examples, config.analysis.half)
    summed, statistics = statistics_stage(cache, config, model_identity, chain, inputs)
    results.finished("statistics", summed)
    if "basis" not in wanted:
        return
    fitted, bases = basis_stage(cache, config, summed.identity, chain, inputs, statistics)
    results.finished("basis", fitted, feature_metrics(bases) | error_metrics("basis", fitted))
    identified, movements = identification_stage(cache, config, fitted.identity, model, inputs, statistics, bases)
    results.finished("identification", identified, identification_metrics(identified.result.values))
    edges: dict[str, Tensor] = {}
    last = fitted
    if "edges" in wanted:
        last, edges = edges_stage(cache, config, fitted.identity, chain, inputs, bases)
    graph = results.graph = on_cpu(InteractionGraph(chain.node_layers, statistics, bases, edges, header, movements))
    if "edges" in wanted:
        results.finished("edges", last, sparsity_metrics(graph) | error_metrics("edges", last))
    if "ablation" in wanted:
        last, results.ablations = ablation_stage(cache, config, last.identity, model, bases, edges)
        results.finished("ablation", last, ablation_metrics(results.ablations) | area_metrics(results.ablations, graph))
        results.tracker.ablations(results.ablations)
        if config.analysis.resamples:
            resampled, intervals = resampling_stage(
                cache, config, last.identity, model, bases, edges, results.ablations
            )
            results.finished("resampling", resampled, interval_metrics(intervals))
    if edges and "figures" in wanted:
        signs, results.signed = signs_stage(cache, config, fitted.identity, chain, inputs, bases)
        results.finished("signs", signs)
    if config.analysis.names_features:
        named, results.table, results.communities = names_stage(
            cache, config, last.identity, graph, model, chain, bases, results.ablations
        )
        results.finished("names", named)
    if results.communities is not None:
        results.metrics |= community_metrics(results.communities)
    if "figures" in wanted and processes.rank() == 0:
        examples_of_features(results, cache, model, chain, bases)


def examples_of_features(
    results: RunResults, cache: StageCache, model: AnalysedModel, chain: Chain, bases: dict[str, Basis]
) -> None:
    """What features respond to, for figures and pages; found anew each time, as it is images for the most part."""
    with progress_of("examples of features"), measured(cache.device) as resources:
        if model.picture_features is not None:
            results.pictures = model.picture_features(chain, bases)
        if model.token_contexts is not None:
            results.contexts = model.token_contexts(chain, bases)
    results.ended("examples", resources, {})
    log.info("examples: %.1f s", resources.seconds)


def on_cpu(graph: InteractionGraph) -> InteractionGraph:
    """The graph for files, figures and communities."""
    cpu = torch.device("cpu")
    return InteractionGraph(
        graph.node_layers,
        {name: replace(one, mean=one.mean.cpu(), gram=one.gram.cpu()) for name, one in graph.statistics.items()},
        {name: basis.to(device=cpu) for name, basis in graph.bases.items()},
        {name: strength.cpu() for name, strength in graph.edges.items()},
        graph.metadata,
        graph.movements,
    )
