"""The runs of a sweep, known before the first one starts: what Hydra's basic sweeper is going to launch.

One composition for every combination of groups, by the loader that the launcher uses; values are set in it, since a
composition for each of thousands of runs would take minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from models.errors import UserError


@dataclass(frozen=True)
class Choice:
    """One value of a swept override, or an override that is the same in all runs.

    Attributes:
        text: the override, as the launcher is given it.
        value: what is written into the composition, None where Hydra has to compose anew.
    """

    text: str
    value: tuple[str, Any] | None


@dataclass(frozen=True)
class Composed:
    """A composition as dictionaries and lists, and the dotted keys that have no value in it."""

    config: dict[str, Any]
    missing: frozenset[str]

    def with_values(self, values: list[tuple[str, Any]]) -> dict[str, Any] | None:
        """A copy with these values; None where a key is not there, or one is still without a value."""
        if self.missing - {key for key, _ in values}:
            return None
        config = copy.deepcopy(self.config)
        return config if all(set_value(config, key, value) for key, value in values) else None


class Sweep:
    """The combinations of a sweep.

    Args:
        master: the configuration that the sweeper is given.
        loader: Hydra's.

    Raises UserError for an override that stands for no value, or for a range without steps.
    """

    def __init__(self, master: DictConfig, loader: ConfigLoader) -> None:
        self.master, self.loader = master, loader
        own = [f"{key}={value}" for key, value in (master.hydra.sweeper.get("params") or {}).items()]
        overrides = OverridesParser.create(loader).parse_overrides([*own, *master.hydra.overrides.task])
        # The command line comes last and replaces what an experiment sweeps over by itself.
        by_key = {override.get_key_element(): override for override in overrides}
        self.choices = [self._choices(override) for override in by_key.values()]

    def __len__(self) -> int:
        n = 1
        for choices in self.choices:
            n *= len(choices)
        return n

    def _choices(self, override: Override) -> list[Choice]:
        key, settable = override.get_key_element(), self._is_settable(override)
        if not override.is_sweep_override():
            text = f"{key}={override.get_value_element_as_str()}"
            return [Choice(text, value_to_set(override.key_or_group, override.value()) if settable else None)]
        if not override.is_discrete_sweep():
            raise UserError(
                f"{override.input_line}: a continuous range; expected single values, choice(...) or range(...), or a "
                "sweeper that draws from it (hydra/sweeper=)"
            )
        texts = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if not texts:
            options = self.loader.get_group_options(override.key_or_group)
            expected = f"one of {', '.join(options)}" if options else "at least one"
            raise UserError(f"{override.input_line}: stands for no value; expected {expected}")
        return [
            Choice(text, value_to_set(override.key_or_group, value) if settable else None)
            for text, value in zip(texts, override.sweep_iterator(), strict=True)
        ]

    def _is_settable(self, override: Override) -> bool:
        """Whether an override changes a key, rather than adding one or choosing an option."""
        key = override.key_or_group
        is_change = override.type is OverrideType.CHANGE and override.package is None and not key.startswith("hydra.")
        return is_change and not self.loader.get_group_options(key.replace(".", "/"))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every run's plain configuration, in the sweeper's order."""
        composed: dict[tuple[str, ...], Composed | None] = {}
        for combination in product(*self.choices):
            structure = tuple(choice.text for choice in combination if choice.value is None)
            if structure not in composed:
                composed[structure] = self._without_interpolations(structure)
            base, values = composed[structure], [choice.value for choice in combination if choice.value is not None]
            config = base.with_values(values) if base is not None else None
            if config is None:
                config = plain(self.loader.load_sweep_config(self.master, [choice.text for choice in combination]))
            yield config

    def directories(self) -> Iterator[str]:
        """Every run's own part of its directory (`hydra.sweep.subdir`), composed anew for each of them."""
        for number, combination in enumerate(product(*self.choices)):
            config = self.loader.load_sweep_config(self.master, [choice.text for choice in combination])
            with read_write(config), open_dict(config):
                config.hydra.job.num, config.hydra.job.id = number, str(number)
            yield str(config.hydra.sweep.subdir)

    def _without_interpolations(self, structure: tuple[str, ...]) -> Composed | None:
        """The composition of these overrides, None where values in it depend on others."""
        config = own_part(self.loader.load_sweep_config(self.master, list(structure)))
        as_written = OmegaConf.to_container(config, resolve=False)
        assert isinstance(as_written, dict)
        missing = frozenset(OmegaConf.missing_keys(config))
        return None if "${" in str(as_written) else Composed({str(k): v for k, v in as_written.items()}, missing)


def own_part(config: DictConfig) -> DictConfig:
    """Without Hydra's."""
    part = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_readonly(part, False)
    return part


def plain(config: DictConfig) -> dict[str, Any]:
    """As dictionaries and lists; raises OmegaConf's errors for what is missing or cannot be resolved."""
    container = OmegaConf.to_container(own_part(config), resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def value_to_set(key: str, value: Any) -> tuple[str, Any] | None:
    """A number, a word or nothing as it is written into a composition; None for what Hydra has to look at."""
    if isinstance(value, QuotedString):
        value = value.text
    if isinstance(value, str) and ("$" in value or "\\" in value):
        return None
    return (key, value) if value is None or isinstance(value, bool | int | float | str) else None


def set_value(config: dict[str, Any], key: str, value: Any) -> bool:
    """Set a dotted key that is there and holds no group of keys; whether it was."""
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict | list):
        return False
    node[last] = value
    return True


def take_over_experiments_sweep(master: DictConfig, loader: ConfigLoader) -> None:
    """Where experiments are swept over (`experiment=a,b`), what they sweep over by themselves is swept over too.

    Raises UserError where they do not sweep over the same.
    """
    swept = [
        override
        for override in OverridesParser.create(loader).parse_overrides(list(master.hydra.overrides.task))
        if override.key_or_group == "experiment" and override.is_sweep_override()
    ]
    if not swept:
        return
    names = list(swept[0].sweep_string_iterator())
    params = [
        OmegaConf.to_container(sweep_of(loader.load_sweep_config(master, [f"experiment={name}"]))) for name in names
    ]
    if any(of_one != params[0] for of_one in params):
        raise UserError(
            f"experiment={','.join(names)}: each sweeps over something else by itself; expected one at a time"
        )
    with read_write(master), open_dict(master):
        master.hydra.sweeper.params = params[0]


def sweep_of(config: DictConfig) -> DictConfig | ListConfig:
    """What a configuration sweeps over by itself, empty for nothing."""
    return OmegaConf.create(OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({})))
