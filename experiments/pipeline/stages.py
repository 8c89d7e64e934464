"""The pipeline's stages: model, statistics, basis, edges (ablation: `ablations.py`).

Each is a function with a typed result that can be called by hand, and is kept under a key of its content.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config.model_checks import load_checkpoint
from experiments.config.schema import RunConfig
from experiments.model_families import MODELS
from experiments.pipeline.cache import FinishedStage, StageCache, StageResult, file_hash, stage_key
from libcore import codec
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.estimators.completeness import chain_completeness
from libcore.estimators.stochastic import Probes
from libcore.graph import interaction_edges
from libcore.methods import METHODS, FitSettings, Method
from libcore.quadrature import Quadrature
from libcore.statistics import LayerStatistics, chain_statistics

log = logging.getLogger(__name__)

DEFAULT_POINTS = 10


def model_stage(cache: StageCache, config: RunConfig) -> FinishedStage:
    """Train, or load the checkpoint; weights by name. A training that was interrupted goes on where it can."""
    family = MODELS[config.model.kind]
    depends_on: dict[str, Any] = {"model": family.depends_on(config)}
    if config.model.checkpoint is not None:
        key = stage_key(depends_on | {"checkpoint": file_hash_of(config)}, family.training_code)
        weights = load_checkpoint(config)
        return cache.finish(
            "model",
            key,
            lambda: StageResult(weights, {"summary": f"from {config.model.checkpoint}", "reached_target": True}),
        )
    if family.seeded:
        depends_on |= {"seed": config.seed}
    key = stage_key(depends_on | {"device": cache.device.type}, family.training_code)
    state = cache.directory / "model" / f"{key}.training.safetensors"

    def compute() -> StageResult:
        trained = family.train(config, cache.device, state)
        return StageResult(trained.weights, trained.record)

    stage = cache.finish("model", key, compute)
    state.unlink(missing_ok=True)
    return stage


def file_hash_of(config: RunConfig) -> str:
    """Content of the checkpoint, so that another file of the same name is another model."""
    assert config.model.checkpoint is not None
    return file_hash(Path(config.model.checkpoint))


def statistics_stage(
    cache: StageCache, config: RunConfig, model_key: str, chain: Chain, inputs: Tensor
) -> tuple[FinishedStage, dict[str, LayerStatistics]]:
    """Means and Grams of every node layer."""
    depends_on = {
        "model": model_key,
        "n_examples": config.analysis.n_examples,
        "half": config.analysis.half,
        "node_layers": chain.node_layers,
        "dtype": config.dtype,
    }

    def compute() -> StageResult:
        statistics = chain_statistics(chain, inputs, config.analysis.memory_bytes)
        return StageResult(codec.tensors_of_statistics(statistics), codec.values_of_statistics(statistics))

    stage = cache.finish("statistics", stage_key(depends_on, ("libcore", "models")), compute)
    return stage, codec.statistics_from(on_device(stage, cache.device), stage.result.values, chain.node_layers)


def basis_stage(
    cache: StageCache,
    config: RunConfig,
    statistics_key: str,
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
) -> tuple[FinishedStage, dict[str, Basis]]:
    """The method's basis of every node layer."""
    analysis = config.analysis
    method, options = method_of(config), method_options(config)
    errors = SamplingErrors("basis")
    settings = FitSettings(
        Truncation(analysis.truncation_rule, analysis.truncation),
        quadrature_of(config),
        analysis.estimator,
        analysis.memory_bytes,
        config.seed,
        probes_of(config),
        errors,
    )
    depends_on = {
        "statistics": statistics_key,
        "method": config.method.model_dump(),
        "truncation": asdict(settings.truncation),
        "quadrature": asdict(settings.quadrature),
        "seed": config.seed if method.seeded else None,
    } | estimator_depends_on(config)

    def compute() -> StageResult:
        bases = method(chain, inputs, statistics, settings, **options)
        return StageResult(codec.tensors_of_bases(bases), errors.values())

    stage = cache.finish("basis", stage_key(depends_on, ("libcore",)), compute)
    return stage, codec.bases_from(on_device(stage, cache.device), chain.has_constant, chain.node_layers)


def method_of(config: RunConfig) -> Method:
    """What the bases are fitted by."""
    return METHODS[config.method.name]


def method_options(config: RunConfig) -> dict[str, Any]:
    """The method's own options."""
    return config.method.model_dump(exclude={"name"})


def edges_stage(
    cache: StageCache, config: RunConfig, basis_key: str, chain: Chain, inputs: Tensor, bases: dict[str, Basis]
) -> tuple[FinishedStage, dict[str, Tensor]]:
    """Squared interaction strengths of every layer pair."""
    quadrature, errors = quadrature_of(config), SamplingErrors("edges")
    depends_on = {"basis": basis_key, "quadrature": asdict(quadrature)} | estimator_depends_on(config)

    def compute() -> StageResult:
        estimator, budget = config.analysis.estimator, config.analysis.memory_bytes
        edges = interaction_edges(chain, inputs, bases, quadrature, estimator, budget, probes_of(config), errors)
        completeness = chain_completeness(chain, inputs, bases, quadrature, budget)
        worst = max(completeness, key=lambda layer: completeness[layer], default=None)
        if worst is not None:
            log.info("edges: attributions add up to the features' change but for %.1e (%s)", completeness[worst], worst)
        return StageResult(edges, errors.values() | {"completeness": completeness})

    stage = cache.finish("edges", stage_key(depends_on, ("libcore",)), compute)
    return stage, on_device(stage, cache.device)


def estimator_depends_on(config: RunConfig) -> dict[str, Any]:
    """The estimator, and the probes where it draws any."""
    estimator = config.analysis.estimator
    return {"estimator": estimator} | ({"probes": asdict(probes_of(config))} if estimator == "stochastic" else {})


def probes_of(config: RunConfig) -> Probes:
    """The configured probes."""
    probes = config.analysis.probes
    return Probes(probes.n, probes.over, probes.seed)


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


def error_metrics(stages: dict[str, FinishedStage]) -> dict[str, float]:
    """Errors under their metric keys: of sampling, where bases or edges were sampled; of the edges' integration."""
    metrics = {
        f"estimator/{stage}_error/{layer}": error
        for stage in ("basis", "edges")
        if stage in stages
        for layer, error in stages[stage].result.values.get("sampling_error", {}).items()
    }
    completeness = stages["edges"].result.values["completeness"] if "edges" in stages else {}
    return metrics | {f"edges/completeness/{layer}": error for layer, error in completeness.items()}


def quadrature_of(config: RunConfig) -> Quadrature:
    """The configured integration rule."""
    return Quadrature.of(config.analysis.integration, config.analysis.n_points or DEFAULT_POINTS)


def on_device(stage: FinishedStage, device: torch.device) -> dict[str, Tensor]:
    """A stage's tensors where the next stage wants them."""
    return {name: tensor.to(device) for name, tensor in stage.result.tensors.items()}
