"""What the library is told of a run's configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from experiments.config.schema import RunConfig
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.estimators.stochastic import Probes
from libcore.fit_settings import FitSettings
from libcore.held_activations import Scratch
from libcore.quadrature import Quadrature
from models.analysed import AnalysedModel

DEFAULT_POINTS = 10


def quadrature_of(config: RunConfig) -> Quadrature:
    """The configured integration rule."""
    return Quadrature.of(config.analysis.integration, config.analysis.n_points or DEFAULT_POINTS)


def probes_of(config: RunConfig) -> Probes:
    """The configured probes."""
    probes = config.analysis.probes
    return Probes(probes.n, probes.over, probes.seed)


def fit_settings(
    config: RunConfig, on_error: Callable[[str, float], None] = lambda layer, relative_error: None
) -> FitSettings:
    """Settings of all methods; `on_error` is told sampling errors by node layer."""
    analysis = config.analysis
    return FitSettings(
        Truncation(analysis.truncation_rule, analysis.truncation),
        quadrature_of(config),
        analysis.estimator,
        analysis.memory_bytes,
        config.seed,
        probes_of(config),
        on_error,
    )


def chain_of(model: AnalysedModel, config: RunConfig, dtype: torch.dtype) -> Chain:
    """The model's chain in this dtype, with the room on disk that it may take."""
    disk = config.analysis.disk_bytes
    scratch = Scratch(config.cache_directory, disk) if disk else None
    return replace(model.chain(dtype), scratch=scratch)
