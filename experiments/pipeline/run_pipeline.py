"""The one pipeline: model, statistics, bases, edges, ablations, measures, files, figures, tracker."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from experiments.config.model_checks import resolve_device
from experiments.config.schema import RunConfig
from experiments.config.scores import with_tolerances
from experiments.config.settings import quadrature_of
from experiments.figures.of_run import draw_figures
from experiments.pipeline.ablations import Ablations, ablation_stage, ablations_to_json
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from experiments.pipeline.json_files import write_json, write_text
from experiments.pipeline.metrics import (
    Metrics,
    ablation_metrics,
    community_metrics,
    feature_metrics,
    resource_metrics,
    sparsity_metrics,
)
from experiments.pipeline.resources import Resources, keep_freed_memory, measured
from experiments.pipeline.stages import (
    basis_stage,
    edges_stage,
    error_metrics,
    model_file,
    model_stage,
    statistics_stage,
)
from experiments.pipeline.tracking import track, tracked_run
from libcore.ablation import EvaluationData, smallest_kept_edge, unablated_score
from libcore.chain import Chain
from libcore.estimators.signed import SignedEdges, chain_signed_edges
from libcore.graph import InteractionGraph
from libcore.modularity import Communities, find_communities
from models.analysed import AnalysedModel, FeaturePicture, TokenContexts
from models.room import Room, room_of
from models.weights import ModelFile
from models.whole_files import written_whole

log = logging.getLogger(__name__)


@dataclass
class RunResults:
    """What a run has found so far; stages that the configuration leaves out stay empty."""

    graph: InteractionGraph
    ablations: Ablations | None = None
    communities: Communities | None = None
    table: FeatureTable | None = None
    pictures: dict[str, list[FeaturePicture]] | None = None
    contexts: TokenContexts | None = None
    signed: dict[str, SignedEdges] | None = None
    metrics: Metrics = field(default_factory=dict)


def run_pipeline(config: RunConfig, directory: Path, sweep: str | None) -> Metrics:
    """Carry out one run and leave its files in `directory` (FILES.md). Returns the metrics.

    Raises UserError for what the user can mend; files already written stay, `status.json` is the caller's.
    """
    room = room_of(config.model_settings)
    config = with_tolerances(config, room.score_name)
    write_text(directory / "config.yaml", to_yaml(config))
    device, dtype = resolve_device(config.device), getattr(torch, config.dtype)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    cache = StageCache(config.cache_directory, device)
    stages: dict[str, FinishedStage] = {}
    others: dict[str, Resources] = {}

    stages["model"] = model_stage(cache, room)
    log.info("model: %s", stages["model"].result.values["summary"])
    if not stages["model"].result.values["reached_target"]:
        log.warning("training ended before it met its criterion; the model is analysed as it is")
    file = model_file(stages["model"])
    model = room.analysed(file, device)

    results = analyse(config, cache, stages, model, model.chain(dtype), header(config, room))
    results.metrics |= {
        "score/train": score_of(config, model, model.train),
        "score/test": score_of(config, model, model.test),
    }
    if results.ablations is not None:
        results.metrics |= ablation_metrics(results.ablations)
    write_results(directory, results, file)
    figures: dict[str, Path] = {}
    if "figures" in config.analysis.stages and results.table is not None:
        with measured(device) as others["figures"]:
            figures = draw_figures(
                directory / "figures",
                config,
                results.graph,
                results.table,
                results.ablations,
                results.metrics,
                results.pictures,
                results.contexts,
                room.score_name,
                results.signed,
            )
    results.metrics |= resource_metrics(stages, others)
    write_json(directory / "timings.json", timings(stages, others))
    write_json(directory / "metrics.json", results.metrics)
    tracked = track(config.tracking, tracked_run(config, results.metrics, results.ablations, figures, sweep), directory)
    log.info("tracking: %s", tracked)
    return results.metrics


def analyse(
    config: RunConfig,
    cache: StageCache,
    stages: dict[str, FinishedStage],
    model: AnalysedModel,
    chain: Chain,
    header: dict[str, str],
) -> RunResults:
    """Statistics, bases, edges, ablations, communities and labels, as far as the configuration has them.

    `header` is what the graph's file says of its origin.
    """
    wanted, inputs = config.analysis.stages, model.fit_inputs(config.analysis.n_examples, config.analysis.half)
    stages["statistics"], statistics = statistics_stage(cache, config, stages["model"].key, chain, inputs)
    if "basis" not in wanted:
        return RunResults(InteractionGraph(chain.node_layers, statistics, {}, {}, header))
    stages["basis"], bases = basis_stage(cache, config, stages["statistics"].key, chain, inputs, statistics)
    edges: dict[str, torch.Tensor] = {}
    if "edges" in wanted:
        stages["edges"], edges = edges_stage(cache, config, stages["basis"].key, chain, inputs, bases)
    results = RunResults(on_cpu(InteractionGraph(chain.node_layers, statistics, bases, edges, header)))
    results.metrics |= feature_metrics(bases) | error_metrics(stages)
    if "ablation" in wanted:
        features_key = stages["edges" if edges else "basis"].key
        stages["ablation"], results.ablations = ablation_stage(cache, config, features_key, model, bases, edges)
    labels = model.label_features(chain, bases)
    membership = {layer: [NO_COMMUNITY] * basis.n_features for layer, basis in bases.items()}
    if edges:
        results.metrics |= sparsity_metrics(results.graph)
        results.communities = communities_of(config, results.graph, results.ablations)
        results.metrics |= community_metrics(results.communities)
        membership = results.communities.membership
    results.table = FeatureTable(labels, membership)
    if "figures" in wanted and model.picture_features is not None:
        results.pictures = model.picture_features(chain, bases)
    if "figures" in wanted and model.token_contexts is not None:
        results.contexts = model.token_contexts(chain, bases)
    if "figures" in wanted and edges:
        results.signed = chain_signed_edges(chain, inputs, bases, quadrature_of(config), config.analysis.memory_bytes)
    return results


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


def score_of(config: RunConfig, model: AnalysedModel, data: EvaluationData) -> float:
    """The model's own score on a whole split, in the precision that ablations have."""
    chain = model.chain(getattr(torch, config.analysis.ablation_dtype))
    return unablated_score(chain, data, config.analysis.memory_bytes)


def write_results(directory: Path, results: RunResults, model: ModelFile) -> None:
    """Graph, ablations, features and the analysed weights."""
    model.write(directory / "model.safetensors")
    if results.graph.bases:
        with written_whole(directory / "graph.safetensors") as path:
            results.graph.save(path)
    if results.ablations is not None:
        write_json(directory / "ablations.json", ablations_to_json(results.ablations))
    if results.table is not None:
        write_json(
            directory / "features.json", {"labels": results.table.labels, "communities": results.table.communities}
        )


def timings(stages: dict[str, FinishedStage], others: dict[str, Resources]) -> dict[str, Any]:
    """Seconds and peak memory of every stage when it was computed, and whether this run found it done."""
    computed = {name: vars(stage.resources) | {"reused": stage.reused} for name, stage in stages.items()}
    return computed | {name: vars(resources) | {"reused": False} for name, resources in others.items()}


def header(config: RunConfig, room: Room[Any]) -> dict[str, str]:
    """What `graph.safetensors` says of itself."""
    versions = {name: importlib.metadata.version(name) for name in ("local-interaction-basis", "torch")}
    return {
        "method": config.method.name,
        "label": config.method.title,
        "config": json.dumps(config.model_dump(), sort_keys=True),
        "model": json.dumps(room.depends_on, sort_keys=True),
        "versions": json.dumps(versions),
    }


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as Hydra would print it."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))


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
