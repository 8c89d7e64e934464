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

from experiments.config.schema import LibConfig, RandomConfig, RunConfig
from experiments.pipeline.cache import FinishedStage, StageCache, StageResult
from experiments.pipeline.console import progress_bar
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.estimators.completeness import chain_completeness
from libcore.estimators.stochastic import Probes
from libcore.graph import interaction_edges
from libcore.methods import METHODS, FitSettings
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import LayerStatistics, chain_statistics
from models.content_hashes import file_hash, stage_key
from models.room import Room
from models.weights import ModelFile

log = logging.getLogger(__name__)

DEFAULT_POINTS = 10


def model_stage(cache: StageCache, room: Room[Any]) -> FinishedStage:
    """Train, or load the checkpoint; weights by name. A training that was interrupted goes on where it can."""
    depends_on: dict[str, Any] = {"model": room.depends_on, "source": room.source_hash()}
    if room.model.checkpoint is not None:
        path = Path(room.model.checkpoint)
        # Another file of the same name is another model; a file that is not there is refused when it is read.
        content = file_hash(path) if path.is_file() else None
        key = stage_key(depends_on | {"checkpoint": content}, room.shared_code)
        record = {"summary": f"from {path}", "reached_target": True}
        return cache.finish("model", key, lambda: stored(room.read_checkpoint(), record))
    if room.seeded:
        depends_on |= {"seed": room.settings.seed}
    key = stage_key(depends_on | {"device": cache.device.type}, room.shared_code)
    state = cache.directory / "model" / f"{key}.training.safetensors"

    def compute() -> StageResult:
        with progress_bar("training") as progress:
            trained = room.train(cache.device, state, progress)
        return stored(trained.file, trained.record)

    stage = cache.finish("model", key, compute)
    state.unlink(missing_ok=True)
    return stage


def stored(file: ModelFile, record: dict[str, Any]) -> StageResult:
    """A model as the stage's result."""
    return StageResult(file.tensors, record, file.header)


def model_file(stage: FinishedStage) -> ModelFile:
    """The model of the finished stage."""
    return ModelFile(stage.result.tensors, stage.result.header)


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
        tensors = {f"mean/{layer}": moments.mean for layer, moments in statistics.items()}
        tensors |= {f"gram/{layer}": moments.gram for layer, moments in statistics.items()}
        return StageResult(tensors, {"count": {layer: moments.count for layer, moments in statistics.items()}})

    stage = cache.finish("statistics", stage_key(depends_on, ("libcore", "models")), compute)
    tensors, count = on_device(stage, cache.device), stage.result.values["count"]
    return stage, {
        layer: LayerStatistics(
            tensors[f"mean/{layer}"], tensors[f"gram/{layer}"], count[layer], chain.isolated.get(layer, ())
        )
        for layer in chain.node_layers
    }


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
    on_path = isinstance(config.method, LibConfig) and config.method.jacobian == "path"
    errors = SamplingErrors("basis")
    settings = FitSettings(
        Truncation(analysis.truncation_rule, analysis.truncation),
        quadrature_of(config) if on_path else GRADIENT,
        analysis.estimator,
        analysis.memory_bytes,
        seed_of(config),
        probes_of(config),
        errors,
    )
    depends_on = {
        "statistics": statistics_key,
        "method": config.method.model_dump(),
        "truncation": asdict(settings.truncation),
        "jacobian": asdict(settings.jacobian),
        "seed": settings.seed,
    } | estimator_depends_on(config)

    def compute() -> StageResult:
        tensors: dict[str, Tensor] = {}
        for layer, basis in METHODS[config.method.name](chain, inputs, statistics, settings).items():
            tensors |= {f"to_basis/{layer}": basis.to_basis, f"from_basis/{layer}": basis.from_basis}
            tensors[f"importance/{layer}"] = basis.importance
        return StageResult(tensors, errors.values())

    stage = cache.finish("basis", stage_key(depends_on, ("libcore",)), compute)
    tensors = on_device(stage, cache.device)
    return stage, {
        layer: Basis(
            tensors[f"to_basis/{layer}"],
            tensors[f"from_basis/{layer}"],
            tensors[f"importance/{layer}"],
            chain.has_constant(layer),
        )
        for layer in chain.node_layers
    }


def seed_of(config: RunConfig) -> int:
    """Of a method that draws random numbers; other methods depend on none."""
    if not isinstance(config.method, RandomConfig):
        return 0
    return config.seed if config.method.seed is None else config.method.seed


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
