"""A sweep before its first job starts: whether each of its runs can be carried out, and what it is after."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import ValidationError

from experiments.config.composition import parse_config, validated
from experiments.config.model_checks import check_runs
from experiments.config.run_directory import refuse_foreign_in_sweep
from experiments.config.schema import RunConfig
from experiments.config.sweep import Sweep, own_part, set_value, take_over_experiments_sweep
from experiments.pipeline.console import progress_of
from experiments.sweeps.objective import Direction, direction_of
from models.errors import UserError
from models.room import room_of

BASIC_SWEEPER, BASIC_LAUNCHER = "BasicSweeper", "BasicLauncher"
NUMBER = re.compile(r"hydra[.:]job\.num")
"""Part of a run's directory that is another for each run of a sweep."""
MANY_RUNS = 1000
"""From here on it is said that runs are being checked."""


def check_sweep(config: DictConfig) -> int | None:
    """Raises UserError for a sweep that could not be carried out; its number of jobs, where that is known before."""
    loader = GlobalHydra.instance().config_loader()
    if not is_target(config.hydra.sweeper, BASIC_SWEEPER):
        # Values that a sweeper draws are checked run by run; what stays the same, here.
        if not OmegaConf.missing_keys(own_part(config)):
            check_runs([parse_config(config)])
            draw_whole_numbers(config)
        return None
    take_over_experiments_sweep(config, loader)
    sweep = Sweep(config, loader)
    check_runs(planned_runs(sweep))
    subdirectory = str(OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"])  # pyright: ignore
    if NUMBER.search(subdirectory) is None:
        refuse_shared_directories(sweep)
    if is_target(config.hydra.launcher, BASIC_LAUNCHER):
        # One run after the other in any case; the sweeper composes a batch's runs before the first of them.
        with read_write(config), open_dict(config):
            config.hydra.sweeper.max_batch_size = 1
    return len(sweep)


def draw_whole_numbers(config: DictConfig) -> None:
    """Have a sweeper draw whole numbers from `interval(a, b)` for a key that takes no others."""
    with read_write(config), open_dict(config):
        task, params = config.hydra.overrides.task, config.hydra.sweeper.get("params") or {}
        for index, text in enumerate(OmegaConf.to_container(task, resolve=False) or ()):
            key, _, value = str(text).partition("=")
            task[index] = f"{key}={of_whole_numbers(config, key, value)}"
        for key, value in params.items():
            params[key] = of_whole_numbers(config, key, value)


def of_whole_numbers(config: DictConfig, key: str, value: Any) -> Any:
    """`int(interval(1, 8))` for `interval(1, 8)` where the key's schema takes no other number; else as it is."""
    if not re.match(r"(tag\(.*,\s*)?interval\(", str(value)):
        return value
    plain = OmegaConf.to_container(own_part(config), resolve=True)
    if not set_value(plain, key, 1.5):  # pyright: ignore[reportArgumentType]
        return value
    try:
        RunConfig.model_validate(plain)
    except ValidationError as error:
        if any(problem["type"].startswith("int_") for problem in error.errors()):
            return f"int({value})"
    return value


def refuse_shared_directories(sweep: Sweep) -> None:
    """Raises UserError where two runs of a sweep would have one directory, or one has somebody else's."""
    number_of: dict[str, int] = {}
    for number, directory in enumerate(sweep.directories()):
        if (first := number_of.setdefault(os.path.normpath(directory), number)) != number:
            raise UserError(
                f"hydra.sweep.subdir={directory}: runs {first} and {number} of the sweep would both write there; "
                "expected one that tells them apart, by ${hydra.job.num} for instance"
            )
    refuse_foreign_in_sweep(Path(sweep.master.hydra.sweep.dir) / directory for directory in number_of)


def set_direction(config: DictConfig) -> str | None:
    """Which way of `objective` is better; a sweeper that draws values is told, unless the user has said. UserError
    where it has no objective, or several directions."""
    if config.objective is None:
        if "direction" in config.hydra.sweeper:
            raise UserError(
                "objective=null: this sweeper needs to know what to minimise; expected a key of metrics.json, such as "
                "objective=edges/needed_0.001/total"
            )
        return None
    is_loss = (
        config.objective.startswith("score/") and room_of(parse_config(config).model_settings).lower_score_is_better
    )
    direction = direction_of(config.objective, is_loss)
    if "direction" in config.hydra.sweeper:
        if is_overridden(config, "hydra.sweeper.direction"):
            asked = str(getattr(config.hydra.sweeper.direction, "name", config.hydra.sweeper.direction))
            if asked not in get_args(Direction):
                raise UserError(f"hydra.sweeper.direction={asked}: expected minimize or maximize, for one objective")
            return asked
        with read_write(config), open_dict(config):
            config.hydra.sweeper.direction = direction
    return direction


def seed_sampler(config: DictConfig) -> None:
    """Have a sweeper that draws values draw the same ones again: a search that is resumed finds what has finished."""
    sampler = config.hydra.sweeper.get("sampler")
    if sampler is not None and "seed" in sampler and sampler.seed is None:
        with read_write(config), open_dict(config):
            sampler.seed = 0


def is_overridden(config: DictConfig, key: str) -> bool:
    """Whether the user has set one of Hydra's own keys, on the command line or in the experiment."""
    overrides = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    if any(str(override).lstrip("+").startswith(f"{key}=") for override in overrides or ()):
        return True
    experiment = config.hydra.runtime.choices.get("experiment")
    if experiment is None:
        return False
    loader: Any = GlobalHydra.instance().config_loader()
    written = loader.repository.load_config(f"experiment/{experiment}")
    return written is not None and OmegaConf.select(written.config, key) is not None


def is_target(part: DictConfig, name: str) -> bool:
    """Whether a sweeper or launcher is the one of this class's name."""
    return str(part.get("_target_", "")).endswith(name)


def planned_runs(sweep: Sweep) -> Iterator[Any]:
    """Every run's typed configuration; says what it is doing where it takes long. Raises UserError."""
    if len(sweep) >= MANY_RUNS:
        print(f"checking {len(sweep):,} runs", file=sys.stderr)
    with progress_of("checking") as progress:
        for number, plain in enumerate(sweep, start=1):
            yield validated(plain)
            if number % MANY_RUNS == 0:
                progress(number, len(sweep), "")
