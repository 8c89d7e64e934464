"""The pipeline's stages: statistics, basis, edges, signs of edges, scores (`model_stage.py`, `ablations.py`).

Each is a function with a typed result that can be called by hand, and is kept under a key of its content.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from experiments.config.schema import RunConfig
from experiments.config.settings import fit_settings, probes_of, quadrature_of
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.cache_entry import StageResult
from experiments.pipeline.console import Advance, PassesOverData
from experiments.pipeline.estimate import announce
from experiments.pipeline.stage_costs import StageCosts, features_of, n_scored
from libcore import codec
from libcore.ablation import unablated_score
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators.completeness import chain_completeness
from libcore.estimators.signed import SignedEdges, chain_signed_edges
from libcore.graph import interaction_edges
from libcore.messages import one_line
from libcore.statistics import LayerStatistics, chain_statistics
from models.analysed import AnalysedModel
from models.content_hashes import file_hash, stage_key
from models.errors import UserError
from models.imported_sources import imported_sources

log = logging.getLogger(__name__)


def statistics_stage(
    cache: StageCache, config: RunConfig, model_identity: str, chain: Chain, inputs: Tensor
) -> tuple[FinishedStage, dict[str, LayerStatistics]]:
    """Means and Grams of every node layer."""
    depends_on = {
        "model": model_identity,
        "n_examples": config.analysis.n_examples,
        "half": config.analysis.half,
        "node_layers": chain.node_layers,
        "dtype": config.dtype,
    }

    def compute(advance: Advance) -> StageResult:
        announce("statistics", StageCosts(config, chain, inputs).statistics, cache.device)
        statistics = chain_statistics(
            watched(chain, advance, len(chain.node_layers)), inputs, config.analysis.memory_bytes
        )
        return StageResult(codec.tensors_of_statistics(statistics), codec.values_of_statistics(statistics))

    stage = cache.finish("statistics", stage_key(depends_on, ("libcore", "models")), compute)
    return stage, codec.statistics_from(on_device(stage, cache.device), stage.result.values, chain.node_layers)


def basis_stage(
    cache: StageCache,
    config: RunConfig,
    statistics_identity: str,
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
) -> tuple[FinishedStage, dict[str, Basis]]:
    """The method's basis of every node layer."""
    errors = SamplingErrors("basis")
    method, options, settings = config.method.method, config.method.options, fit_settings(config, errors)
    depends_on = {
        "statistics": statistics_identity,
        "method": config.method.model_dump(exclude={"label"}),
        "files": {name: file_hash(path) for name, path in config.method.files.items()},
        "source": imported_sources(config.method.module),
        "truncation": asdict(settings.truncation),
        "quadrature": asdict(settings.quadrature) if method.integrates(**options) else None,
        "seed": config.seed if method.seeded else None,
    } | estimator_depends_on(config)

    def compute(advance: Advance) -> StageResult:
        announce("basis", StageCosts(config, chain, inputs).basis, cache.device)
        observed = watched(chain, advance, 1 if method.searches else len(chain.sections))
        try:
            bases = method(observed, inputs, statistics, settings, **options)
        except ValueError as error:  # what a method says of options, files and bases that do not suit the model
            raise UserError(one_line(error)) from error
        return StageResult(codec.tensors_of_bases(bases), errors.values())

    stage = cache.finish("basis", stage_key(depends_on, ("libcore",)), compute)
    return stage, codec.bases_from(on_device(stage, cache.device), chain.has_constant, chain.node_layers)


def edges_stage(
    cache: StageCache, config: RunConfig, basis_identity: str, chain: Chain, inputs: Tensor, bases: dict[str, Basis]
) -> tuple[FinishedStage, dict[str, Tensor]]:
    """Squared interaction strengths of every layer pair, on the first `analysis.n_edge_examples` of the inputs."""
    quadrature, errors = quadrature_of(config), SamplingErrors("edges")
    n_examples = config.analysis.n_edge_examples
    depends_on = {"basis": basis_identity, "quadrature": asdict(quadrature), "n_examples": n_examples}
    depends_on |= estimator_depends_on(config)
    inputs = inputs[:n_examples]

    def compute(advance: Advance) -> StageResult:
        announce("edges", StageCosts(config, chain, inputs, features_of(chain, bases)).edges, cache.device)
        observed = watched(chain, advance, len(chain.sections))
        estimator, budget = config.analysis.estimator, config.analysis.memory_bytes
        edges = interaction_edges(observed, inputs, bases, quadrature, estimator, budget, probes_of(config), errors)
        completeness = chain_completeness(chain, inputs, bases, quadrature, budget)
        worst = max(completeness, key=lambda layer: completeness[layer], default=None)
        if worst is not None:
            log.info("edges: attributions add up to the features' change but for %.1e (%s)", completeness[worst], worst)
        return StageResult(edges, errors.values() | {"completeness": completeness})

    stage = cache.finish("edges", stage_key(depends_on, ("libcore",)), compute)
    return stage, on_device(stage, cache.device)


def signs_stage(
    cache: StageCache, config: RunConfig, basis_identity: str, chain: Chain, inputs: Tensor, bases: dict[str, Basis]
) -> tuple[FinishedStage, dict[str, SignedEdges]]:
    """Which way each interaction goes, for the pages."""
    quadrature, budget = quadrature_of(config), config.analysis.memory_bytes
    n_examples = config.analysis.n_edge_examples
    inputs = inputs[:n_examples]

    def compute(advance: Advance) -> StageResult:
        signed = chain_signed_edges(watched(chain, advance, len(chain.sections)), inputs, bases, quadrature, budget)
        tensors = {f"mean/{layer}": of_layer.mean for layer, of_layer in signed.items()}
        tensors |= {f"slope/{layer}": of_layer.slope for layer, of_layer in signed.items()}
        return StageResult(tensors, {layer: of_layer.n_examples for layer, of_layer in signed.items()})

    depends_on = {"basis": basis_identity, "quadrature": asdict(quadrature), "n_examples": n_examples}
    stage = cache.finish("signs", stage_key(depends_on, ("libcore",)), compute)
    tensors, n_examples = stage.result.tensors, stage.result.values
    return stage, {
        layer: SignedEdges(tensors[f"mean/{layer}"], tensors[f"slope/{layer}"], n) for layer, n in n_examples.items()
    }


def score_stage(cache: StageCache, config: RunConfig, model_identity: str, model: AnalysedModel) -> FinishedStage:
    """The model's own score on both splits, on the first `analysis.n_score_examples` of each."""
    depends_on = {
        "model": model_identity,
        "dtype": config.analysis.ablation_dtype,
        "n_examples": config.analysis.n_score_examples,
    }

    def compute(advance: Advance) -> StageResult:
        chain = model.chain(getattr(torch, config.analysis.ablation_dtype))
        splits = {"train": model.train, "test": model.test}
        costs = StageCosts(config, chain, model.test.inputs)
        announce("score", lambda: costs.score(n_scored(config, model)), cache.device)
        passes, scores = PassesOverData(advance, len(splits)), {}
        for name, split in splits.items():
            observed = replace(chain, on_chunk=lambda _, done, total, name=name: passes(f"{name} split", done, total))
            data = split.first(config.analysis.n_score_examples)
            scores[name] = unablated_score(observed, data, config.analysis.memory_bytes)
        return StageResult(values=scores)

    return cache.finish("score", stage_key(depends_on, ("libcore", "models")), compute)


def watched(chain: Chain, advance: Advance, n_layers: int) -> Chain:
    """The same chain, whose passes over data tell how far they have come; a stage passes from so many node layers."""
    return replace(chain, on_chunk=PassesOverData(advance, n_layers))


def estimator_depends_on(config: RunConfig) -> dict[str, Any]:
    """The estimator, and the probes where it draws any."""
    estimator = config.analysis.estimator
    return {"estimator": estimator} | ({"probes": asdict(probes_of(config))} if estimator == "stochastic" else {})


class SamplingErrors:
    """Relative errors that a stage's stochastic estimates tell of themselves, by node layer."""

    def __init__(self, stage: str) -> None:
        self.stage, self.by_layer = stage, {}

    def __call__(self, layer: str, relative_error: float) -> None:
        log.info("%s: %s: sampling error %.1e, by halves of the probes", self.stage, layer, relative_error)
        self.by_layer[layer] = relative_error

    def values(self) -> dict[str, Any]:
        """What the stage keeps: nothing where nothing was sampled."""
        return {"sampling_error": self.by_layer} if self.by_layer else {}


def error_metrics(stage: str, finished: FinishedStage) -> dict[str, float]:
    """Errors of bases or edges under their metric keys: of sampling, where they were sampled; of edges' integration."""
    values = finished.result.values
    sampling, completeness = values.get("sampling_error", {}), values.get("completeness", {})
    return {f"estimator/{stage}_error/{layer}": error for layer, error in sampling.items()} | {
        f"edges/completeness/{layer}": error for layer, error in completeness.items()
    }


def on_device(stage: FinishedStage, device: torch.device) -> dict[str, Tensor]:
    """A stage's tensors where the next stage wants them."""
    return {name: tensor.to(device) for name, tensor in stage.result.tensors.items()}
