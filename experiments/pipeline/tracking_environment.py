"""What W&B's own environment variables say where the configuration leaves it open."""

from __future__ import annotations

import os

from pydantic import ValidationError

from experiments.config.schema import TrackingConfig
from models.errors import UserError

MODES = {"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline"}
"""What `WANDB_MODE` may say, and what it means."""
VARIABLES = {"project": "WANDB_PROJECT", "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "notes": "WANDB_NOTES"}


def mode_of(config: TrackingConfig) -> str:
    """`online`, `offline` or `disabled`: the configuration's, else `WANDB_MODE`'s, else `offline`; raises UserError."""
    if config.mode is not None:
        return config.mode
    asked = os.environ.get("WANDB_MODE") or "offline"
    if asked not in (*MODES, "disabled"):
        raise UserError(f"WANDB_MODE={asked}: expected online, offline or disabled")
    return MODES.get(asked, asked)


def with_environment(config: TrackingConfig) -> TrackingConfig:
    """What the configuration leaves open as W&B's own variables have it; raises UserError for what W&B would refuse."""
    asked = {
        key: (variable, value)
        for key, variable in VARIABLES.items()
        if getattr(config, key) is None and (value := os.environ.get(variable))
    }
    try:
        return TrackingConfig.model_validate(config.model_dump() | {key: value for key, (_, value) in asked.items()})
    except ValidationError as error:
        variable, value = asked[str(error.errors()[0]["loc"][0])]
        raise UserError(
            f"{variable}={value}: W&B takes no such name; expected a shorter one without / \\ # ? % :"
        ) from error
