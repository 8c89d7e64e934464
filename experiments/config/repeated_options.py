"""A configuration group that a command gives two options of."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf

from experiments.config.folder import CONFIG_DIRECTORY
from models.errors import UserError


def refuse_two_options(overrides: DictConfig) -> None:
    """Raises UserError where a group is given two options, of which the last alone would count.

    `overrides` are Hydra's lists of its own and of the others.
    """
    groups = {path.name for path in CONFIG_DIRECTORY.iterdir() if path.is_dir()}
    given: dict[str, str] = {}
    for text in (*as_written(overrides.hydra), *as_written(overrides.task)):
        group = text.partition("=")[0].lstrip("+")
        if (group in groups or group.startswith("hydra/")) and given.setdefault(group, text) != text:
            raise UserError(
                f"{given[group]} {text}: two options of one group; expected one, or -m and both with a comma"
            )


def as_written(overrides: ListConfig) -> list[str]:
    """Interpolations as such."""
    return [str(text) for text in OmegaConf.to_container(overrides, resolve=False) or ()]
