"""Groups of runs, a method each: what they are called and in which order they stand in tables, legends and colours.

A group is called like its method, a variant of it `lib (path)`, a basis from elsewhere by the label that its user gave.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from experiments.config.method_schema import OWN_KEYS
from libcore.methods import METHODS, Method, UnknownMethod


def group_of(part: Mapping[str, Any]) -> str:
    """The group of a run by the method's part of its configuration."""
    if part.get("label"):
        return part["label"]
    method = known_method(part["name"])
    defaults = {} if method is None else {name: option.default for name, option in method.options.items()}
    options = {key: value for key, value in part.items() if key not in OWN_KEYS}
    varied = [
        value if isinstance(value, str) else f"{key}={value}"
        for key, value in options.items()
        if defaults.get(key, inspect.Parameter.empty) is not inspect.Parameter.empty and defaults[key] != value
    ]
    return part["name"] + (f" ({', '.join(varied)})" if varied else "")


def known_method(group: str) -> Method | None:
    """The method that a group is called by, None for one that is not installed here."""
    name = group.partition(" (")[0]
    try:
        return METHODS[name]
    except (UnknownMethod, ImportError):  # another package's entry point that does not lead anywhere any more
        return None


def group_label(group: str) -> str:
    """How a group is called in a table or legend: `LIB`, `LIB (path)`."""
    method = known_method(group)
    return group if method is None else method.label + group[len(method.name) :]


def group_quantity(group: str) -> str | None:
    """What the group's features are sorted by, where that is known."""
    method = known_method(group)
    return None if method is None else method.sorts_by


def group_order(group: str) -> tuple[int, str]:
    """LIB first, then its baselines; a variant follows its method, others come last by name."""
    method = known_method(group)
    place = None if method is None else method.place
    return len(METHODS) if place is None else place, group
