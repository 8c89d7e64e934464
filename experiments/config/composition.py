"""Checking a command line before anything is loaded: every run of a sweep, each error as one line."""

from __future__ import annotations

import re
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from experiments.config.schema import RunConfig
from models.errors import UserError, nearest

UNIONS = ("model", "method")
"""Parts of the configuration whose keys depend on which option is chosen."""

CONFIG_DIRECTORY = Path(__file__).resolve().parents[2] / "conf"


def check_command_line(overrides: list[str], multirun: bool) -> list[RunConfig]:
    """The configuration of every run these overrides ask for. Raises UserError for the first that cannot be run."""
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        parsed = parse_overrides(overrides)
        first = compose_checked(swept_overrides(parsed)[0])
        config = parse_config(first)
        check_writable(Path(config.output_directory), "output_directory=")
        if not (multirun or is_multirun(first)):
            several = [override.input_line for override in parsed if override.is_sweep_override()]
            if several:
                raise UserError(f"{several[0]}: several values are a sweep; expected -m before it, or one value")
            check_writable(Path(first.hydra.run.dir), "hydra.run.dir=")
            return [config]
        given = {override.key_or_group for override in parsed}
        from_config = [
            f"{key}={value}" for key, value in (first.hydra.sweeper.params or {}).items() if key not in given
        ]
        check_writable(Path(first.hydra.sweep.dir), "hydra.sweep.dir=")
        everything = parsed + parse_overrides(from_config)
        return [parse_config(compose_checked(one_run)) for one_run in swept_overrides(everything)]


def parse_overrides(overrides: list[str]) -> list[Override]:
    """Hydra's grammar; `glob(*)` and the like look options up in `conf/`, so this needs an initialised Hydra."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        return parser.parse_overrides(overrides)
    except (HydraException, ValueError) as error:
        raise UserError(f"{' '.join(overrides)}: not of the form key=value: {first_line(error)}") from error


def is_multirun(composed: DictConfig) -> bool:
    """Whether the composition itself asks for a sweep, as an experiment may."""
    return "MULTIRUN" in str(composed.hydra.mode)


def sweep_given_twice(overrides: list[str]) -> list[str]:
    """Keys that an experiment sweeps over by itself and the command line sets as well: the command line decides."""
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        given = {override.key_or_group for override in parse_overrides(overrides)}
        experiment = [override for override in overrides if override.startswith("experiment=") and "," not in override]
        swept = compose_checked(experiment).hydra.sweeper.params or {}
    return [key for key in swept if key in given]


def swept_overrides(parsed: list[Override]) -> list[list[str]]:
    """One list of overrides for every combination of a sweep."""
    choices: list[list[str]] = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line or ""])
    return [list(combination) for combination in product(*choices)]


def compose_checked(overrides: list[str]) -> DictConfig:
    """Hydra's composition, its errors turned into one line with the nearest valid name."""
    try:
        return compose("config", overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain_composition(error)) from error
    except ValueError as error:
        raise UserError(f"{' '.join(overrides)}: {first_line(error)}") from error


def explain_composition(error: Exception) -> str:
    """What Hydra says, in one line."""
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        return f"unknown configuration key {key}{nearest(key, known_keys())}; --help lists all"
    if match := re.search(r"In '[^']*': Could not find '([^/']+)/([^']+)'|Could not find '([^/']+)/([^']+)'", text):
        group, option = match[1] or match[3], match[2] or match[4]
        options = sorted(path.stem for path in (CONFIG_DIRECTORY / group).glob("*.yaml"))
        return f"{group}={option}: no such option{nearest(option, options)}; expected one of {', '.join(options)}"
    if match := re.search(r"Could not override '?([\w.]+)", text) or re.search(
        r"No match in the defaults list for '([^']+)'", text
    ):
        return f"unknown configuration group {match[1]}{nearest(match[1], known_keys())}; --help lists all"
    return first_line(error)


def known_keys() -> list[str]:
    """Every key of the default composition and of every model and method, dotted, and every group."""
    keys: list[str] = []

    def collect(node: Any, prefix: str) -> None:
        for key, value in node.items():
            keys.append(f"{prefix}{key}")
            if isinstance(value, dict):
                collect(value, f"{prefix}{key}.")

    collect(OmegaConf.to_container(compose("config")), "")
    for group in UNIONS:
        for option in sorted((CONFIG_DIRECTORY / group).glob("*.yaml")):
            collect(OmegaConf.to_container(OmegaConf.load(option)), f"{group}.")
    return [*keys, "experiment"]


def parse_config(composed: DictConfig) -> RunConfig:
    """The typed configuration. Raises UserError with the key, the value and what would be right."""
    try:
        plain = {key: composed[key] for key in composed if key != "hydra"}
        return RunConfig.model_validate(
            OmegaConf.to_container(OmegaConf.create(plain), resolve=True, throw_on_missing=True)
        )
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from error
    except ValidationError as error:
        raise UserError(explain_validation(error)) from error


def explain_validation(error: ValidationError) -> str:
    """The first thing that is wrong: key=value, expected what."""
    problem = error.errors()[0]
    # A union puts the type that was tried into the path; it is no key.
    path = [part for index, part in enumerate(problem["loc"]) if not (index > 0 and part in ("str", "int"))]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if problem["type"] == "extra_forbidden":
        return f"unknown configuration key {key}{nearest(key, known_keys())}; --help lists all"
    if problem["type"] == "missing":
        return f"configuration key {key} is missing; --help lists all"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if problem["type"] == "string_pattern_mismatch" and key == "device":
        message = "expected auto, cpu, cuda or cuda:N"
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return f"{key}: {message}" if key else message
    suggestion = ""
    if problem["type"] == "literal_error":
        suggestion = nearest(str(problem["input"]), re.findall(r"'([^']+)'", message))
    return f"{key}={problem['input']}: {message}{suggestion}"


def check_writable(directory: Path, option: str) -> None:
    """Raise UserError where the directory of `option` can be neither written nor made; leaves nothing behind."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(20, "not a directory")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(
            f"{option}{'' if option.endswith('=') else ' '}{directory}: cannot be written: {existing}: {reason}; "
            "expected a directory that can"
        ) from error


def first_line(error: Exception) -> str:
    """An error's own first line, without Hydra's trailing hints."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def is_plain_help(arguments: list[str]) -> bool:
    """Whether Hydra answers this command line by itself, without a run."""
    words = {argument.split("=")[0] for argument in arguments}
    return bool(words & {"--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc", "--info", "-i"})
