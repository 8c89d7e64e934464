"""What is wrong with a command line or a configuration, in one line: what, where, what was expected, the nearest name.

What Hydra cannot compose is looked for in the overrides themselves; its own words are the last resort.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, SearchPathException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError
from yaml import MarkedYAMLError

from experiments.config.folder import CONFIG_DIRECTORY
from libcore.messages import first_line
from libcore.names import nearest

PATTERNS = {
    "device": "expected auto, cpu, cuda or cuda:N",
    "method.name": "expected letters, digits, _, - and . only",
    "model.kind": "expected letters, digits, _, - and . only",
    "tracking.project": "expected a name without / \\ # ? % :",
}
"""What the patterns of the schemas ask for, by key."""
EXTRA = "local-interaction-basis[sweeps]"
OF_EXTRA = {"hydra/launcher": ("joblib", "submitit_local", "submitit_slurm"), "hydra/sweeper": ("optuna",)}
"""Launchers and sweepers that the extra brings."""
TOO_SHORT = {"string_too_short": "expected a text that is not empty", "too_short": "expected at least one"}
ROOT = "config"
"""Name of the configuration that everything is composed into."""


def explain_composition(error: Exception, overrides: Sequence[str], *, multirun: bool = False) -> str:
    """Why these overrides cannot be composed, into one run or a sweep."""
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except (HydraException, ValueError) as grammar:
            return explain_grammar(text, grammar)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return explain_option(error.missing_cfg_file, sorted(error.options or ()))
    known = known_keys()
    for override in parsed:
        if (reason := explain_override(override, known, overrides, multirun)) is not None:
            return reason
    # OmegaConf says more of what is wrong with a value than Hydra, which only says where.
    reason = explain_value(error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error, known)
    # A folder or a file, whatever the overrides are.
    if isinstance(error, MissingConfigException | SearchPathException | MarkedYAMLError):
        return reason
    return f"{overrides[0]}: {reason}" if len(overrides) == 1 and overrides[0] not in reason else reason


def explain_option(path: str, options: Sequence[str]) -> str:
    """A group's option that is not there, by its path."""
    group, _, option = path.rpartition("/")
    if not group:
        return f"--config-name {option}: no such configuration{nearest(option, [ROOT])}; expected {ROOT}"
    if option in OF_EXTRA.get(group, ()):
        return f"{group}={option}: its plugin is not installed; expected pip install '{EXTRA}' before"
    return f"{group}={option}: no such option{nearest(option, options)}; expected one of {', '.join(options)}"


def explain_override(override: Override, known: Sequence[str], overrides: Sequence[str], multirun: bool) -> str | None:
    """What is wrong with one override by itself, None where nothing is."""
    key, text = override.key_or_group, str(override.input_line)
    if not key:
        return f"{text}: not of the form key=value"
    is_own = not override.is_add() and not key.startswith("hydra")
    if is_own and key not in known and not within_free_part(key, overrides):
        return f"unknown configuration key {key}{nearest(key, known)}; --help lists all"
    if override.is_sweep_override() and not multirun:
        return f"{text}: several values are a sweep; expected -m before it, or one value"
    return None


def explain_value(error: BaseException, known: Sequence[str]) -> str:
    """A key that is not there, or has no value, or what else the error says."""
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        key = str(error.full_key or error.key)
        if isinstance(siblings := error.parent_node, DictConfig) and "." in key:
            known = [f"{key.rpartition('.')[0]}.{name}" for name in siblings]
        return f"unknown configuration key {key}{nearest(key, known)}; --help lists all"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key or error.key}=: has no value; expected one"
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark or error.context_mark) is not None:
        return f"{mark.name}, line {mark.line + 1}: no YAML: {error.problem or error.context}"
    return first_line(error)


def explain_grammar(text: str, error: Exception) -> str:
    """An override that Hydra's grammar cannot read."""
    key, _, value = text.partition("=")
    if key and any(sign in value for sign in "=:{}[]() ") and not value.startswith(("'", '"', "[", "{")):
        return f"{text}: the value holds a sign of Hydra's grammar; expected it in quotes: '{key}=\"{value}\"'"
    return f"{text}: not of the form key=value: {first_line(error)}"


def within_free_part(key: str, overrides: Sequence[str]) -> bool:
    """Whether a key belongs to an option from elsewhere, whose keys are not known here."""
    group = key.partition(".")[0]
    return "." in key and any(text.startswith(f"{group}=") for text in overrides)


@cache
def known_keys() -> tuple[str, ...]:
    """Every key of the root configuration and of every option, dotted, and every group."""
    keys: list[str] = []

    def collect(node: Any, prefix: str) -> None:
        for key, value in node.items():
            keys.append(f"{prefix}{key}")
            if isinstance(value, dict):
                collect(value, f"{prefix}{key}.")

    root = OmegaConf.to_container(OmegaConf.load(CONFIG_DIRECTORY / f"{ROOT}.yaml"))
    assert isinstance(root, dict)
    collect({key: value for key, value in root.items() if key not in ("defaults", "hydra")}, "")
    for group in sorted(path for path in CONFIG_DIRECTORY.iterdir() if path.is_dir() and path.name != "hydra"):
        keys.append(group.name)
        for option in sorted(group.glob("*.yaml")) if group.name != "experiment" else ():
            collect(OmegaConf.to_container(OmegaConf.load(option)), f"{group.name}.")
    return tuple(dict.fromkeys(keys))


def explain_validation(error: ValidationError) -> str:
    """The first thing that is wrong: key=value, expected what."""
    problem = error.errors()[0]
    # A union puts the type that was tried into the path; it is no key.
    path = [part for index, part in enumerate(problem["loc"]) if not (index > 0 and part in ("str", "int"))]
    key = "".join(dotted(path)).lstrip(".")
    if problem["type"] == "extra_forbidden":
        return f"unknown configuration key {key}{nearest(key, known_keys())}; --help lists all"
    if problem["type"] == "missing":
        return f"configuration key {key} is missing; --help lists all"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if problem["type"] == "string_pattern_mismatch":
        message = PATTERNS.get(key, message)
    if problem.get("ctx", {}).get("min_length") == 1:
        message = TOO_SHORT.get(problem["type"], message)
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return f"{key}: {message}" if key else message
    suggestion = ""
    if problem["type"] == "literal_error":
        suggestion = nearest(str(problem["input"]), re.findall(r"'([^']+)'", message))
    return f"{key}={problem['input']}: {message}{suggestion}"


def dotted(path: Sequence[int | str]) -> Iterator[str]:
    """`.analysis`, `.tolerances`, `[1]`."""
    for part in path:
        yield f"[{part}]" if isinstance(part, int) else f".{part}"
