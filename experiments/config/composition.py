"""From a composed configuration to the typed one; Hydra composes, the schemas check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from experiments.config.explanations import explain_composition, explain_validation
from experiments.config.folder import CONFIG_DIRECTORY
from experiments.config.memory import refuse_too_large
from experiments.config.schema import RunConfig
from models.errors import UserError


def parse_config(composed: DictConfig) -> RunConfig:
    """The typed configuration. Raises UserError with the key, the value and what would be right."""
    try:
        plain = OmegaConf.create({key: composed[key] for key in composed if key != "hydra"})
        return validated(OmegaConf.to_container(plain, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise UserError(explain_composition(error, ())) from error


def validated(plain: Any) -> RunConfig:
    """The typed configuration of a plain one; raises UserError."""
    try:
        config = RunConfig.model_validate(plain)
    except ValidationError as error:
        raise UserError(explain_validation(error)) from error
    refuse_too_large(config)
    return config


def config_of(overrides: Sequence[str]) -> RunConfig:
    """The configuration of one run, for what is not a Hydra application itself; raises UserError."""
    try:
        with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
            return parse_config(compose("config", overrides=list(overrides)))
    except UserError:
        raise
    # Hydra, its grammar and OmegaConf raise whatever they run into.
    except Exception as error:
        raise UserError(explain_composition(error, overrides)) from error
