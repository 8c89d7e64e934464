"""What runs are averaged over, and what the settings are called that they are not averaged over.

A setting is all of a run's configuration that its numbers may depend on, but its method, its seed and which half of the
data it was fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.config.folder import CONFIG_DIRECTORY
from experiments.figures.hyperparameter_values import ABSENT, Value, value_text
from experiments.reporting.finished_runs import FinishedRun

Setting = dict[str, Value]
"""Values by dotted key."""

WITHOUT_EFFECT = (
    "analysis.identify_by",
    "analysis.memory_budget",
    "analysis.disk_budget",
    "analysis.resamples",
    "analysis.stages",
    "analysis.estimate_only",
    "data.root",
    "device",
    "hydra",
    "objective",
    "output_directory",
    "threads",
    "tracking",
)
"""Keys, with all keys below them, that no number of a run depends on; runs that differ in nothing else are averaged.

`memory_budget`, `disk_budget`, `device` and `threads` say how a number is computed: sums are taken in other chunks or
by another machine, equal up to round-off. `data.root` and `output_directory` say where files lie, `tracking` who is
told, `hydra` and `objective` how runs are launched and chosen. `identify_by`, `resamples`, `stages` and `estimate_only`
say which metrics there are, not their values, but for the edge weight of the communities (`with_edge_weight`).
"""
AVERAGED = ("method", "seed")
"""What has its own place in every table."""

HALF = "analysis.half"
ONE_OF_TWO = "one of two"
EDGE_WEIGHT = "analysis.communities.edge_weight"
CHECKPOINT = "model.checkpoint"


def setting_of(run: FinishedRun) -> Setting:
    """The run's setting, keys that it does not have yet at their defaults in `conf/`."""
    setting = defaults_of(run.model) | flat(run.config)
    setting = with_edge_weight(setting)
    if run.half is not None:
        setting[HALF] = ONE_OF_TWO
    if setting.get(CHECKPOINT) and run.model != "pretrained_transformer":
        # One checkpoint per seed is how trained seeds come in from outside; pretrained ones are different models.
        setting[CHECKPOINT] = "given"
    return {key: value for key, value in setting.items() if not is_below(key, (*WITHOUT_EFFECT, *AVERAGED))}


def with_edge_weight(setting: Setting) -> Setting:
    """`auto` as what it comes to: the logarithm takes its smallest edges from the ablation, if of all pairs."""
    stages = setting.get("analysis.stages")
    if setting.get(EDGE_WEIGHT) == "auto" and isinstance(stages, list):
        ablates_all = "ablation" in stages and setting.get("analysis.ablate.edges") is None
        return setting | {EDGE_WEIGHT: "log" if ablates_all else "sqrt"}
    return setting


def identity(run: FinishedRun) -> str:
    """Equal for runs of one setting."""
    return json.dumps([run.model_title, setting_of(run)], sort_keys=True, default=str)


@cache
def defaults_of(kind: str) -> Setting:
    """What `conf/` says of every key of the root, the analysis and one kind of model; a user's own model has none."""
    found: Setting = {}
    for file, prefix in (("config", ""), ("analysis/default", "analysis."), (f"model/{kind}", "model.")):
        path = CONFIG_DIRECTORY / f"{file}.yaml"
        try:
            content = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
        except (OSError, ValueError, YAMLError, OmegaConfBaseException):  # an installation's own files, changed by hand
            continue
        if isinstance(content, dict):
            found |= {f"{prefix}{key}": value for key, value in flat(content).items() if key != "defaults"}
    return {key: value for key, value in found.items() if value != "???"}


def flat(content: Mapping[Any, Any], prefix: str = "") -> Setting:
    """Values by dotted key; lists are values, and so are mappings without keys."""
    found: Setting = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def is_below(key: str, parents: Iterable[str]) -> bool:
    """Whether a key is one of these, or of a group of these."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def differing_keys(settings: Sequence[Setting]) -> tuple[str, ...]:
    """Keys of which these settings do not all have the same value, in the configuration's order."""
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return tuple(
        key for key in keys if len({json.dumps(setting.get(key, ABSENT), default=str) for setting in settings}) > 1
    )


def setting_title(model: str, setting: Setting, keys: Sequence[str]) -> str:
    """`modular_addition: analysis.integration=gradient, analysis.truncation=1e-12`; the model alone without keys."""
    texts = [f"{key}={value_text(setting.get(key, ABSENT))}" for key in keys]
    return f"{model}: {', '.join(texts)}" if texts else model
