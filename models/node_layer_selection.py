"""Which node layers are meant by names and patterns: one rule for all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from libcore.names import nearest

WILDCARDS = frozenset("*?[")
NO_OTHER_NAMES: Mapping[str, str] = MappingProxyType({})


def select_names(
    chosen: Sequence[str], known: Sequence[str], other_names: Mapping[str, str] = NO_OTHER_NAMES, at_least: int = 2
) -> tuple[str, ...]:
    """The chosen ones of the model's node layers, in the model's order.

    Args:
        chosen: names, and patterns as of file names (`blocks.*.hook_resid_pre`).
        known: all node layers of the model, in its order.
        other_names: further names of node layers, with those in `known`; one chosen by such a name goes by it.
        at_least: how many there have to be.

    Raises ValueError for an entry that matches nothing, with the nearest name, for names that repeat or are not in the
    model's order, and for fewer layers than there have to be.
    """
    every_name = (*known, *other_names)
    names = [entry for entry in chosen if not is_pattern(entry)]
    chosen_name: dict[str, str] = {}
    for name in names:
        check_name(name, known, other_names)
        chosen_name.setdefault(other_names.get(name, name), name)
    if [chosen_name[layer] for layer in known if layer in chosen_name] != names:
        raise ValueError(f"{list(chosen)}: expected each once, in the model's order: {', '.join(known)}")
    for pattern in filter(is_pattern, chosen):
        found = [name for name in every_name if fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(f"{pattern}: matches no node layer; expected some of {', '.join(known)}")
        for name in found:
            chosen_name.setdefault(other_names.get(name, name), name)
    if len(chosen_name) < at_least:
        raise ValueError(
            f"{list(chosen)}: {len(chosen_name)} node layer; expected at least {at_least} of {', '.join(known)}"
        )
    return tuple(chosen_name[layer] for layer in known if layer in chosen_name)


def is_pattern(entry: str) -> bool:
    """Whether an entry stands for several names."""
    return bool(WILDCARDS & set(entry))


def check_name(name: str, known: Sequence[str], other_names: Mapping[str, str] = NO_OTHER_NAMES) -> None:
    """Raises ValueError for a name that is no node layer's, with the nearest that is."""
    if name in known or name in other_names:
        return
    hint = nearest(name, (*known, *other_names))
    raise ValueError(f"{name}: no such node layer{hint}; expected some of {', '.join(known)}")
