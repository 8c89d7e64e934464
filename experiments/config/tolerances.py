"""`analysis.tolerances`: as configured, or those of the model's score."""

from __future__ import annotations

from experiments.config.schema import RunConfig
from experiments.config.scores import TOLERANCES
from experiments.model_families import MODELS


def resolved(config: RunConfig) -> RunConfig:
    """The configuration with the tolerances of the model's score in place of null."""
    analysis = config.analysis.model_copy(update={"tolerances": tolerances_of(config)})
    return config.model_copy(update={"analysis": analysis})


def tolerances_of(config: RunConfig) -> list[float]:
    """The configured tolerances, by default those of the model's score."""
    if config.analysis.tolerances is not None:
        return config.analysis.tolerances
    return TOLERANCES[MODELS[config.model.kind].score_name]
