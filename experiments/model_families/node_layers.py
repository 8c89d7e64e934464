"""Which node layers a run analyses: names and patterns in `analysis.node_layers`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from experiments.errors import UserError, nearest

OPTION = "analysis.node_layers="
WILDCARDS = frozenset("*?[")


def select_node_layers(chosen: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The chosen ones of the model's node layers, in the model's order; all by default.

    An entry is a name, or a pattern as of file names (`blocks.*.hook_resid_pre`). Raises UserError for an entry that
    matches nothing, for names that repeat or are not in the model's order, and for fewer than two layers in all.
    """
    if chosen is None:
        return tuple(known)
    names = [entry for entry in chosen if not is_pattern(entry)]
    matched = set(names)
    for entry in chosen:
        if is_pattern(entry):
            matched |= matching(entry, known)
        else:
            check_node_layer(entry, known, OPTION)
    if [layer for layer in known if layer in names] != names:
        raise UserError(f"{OPTION}{list(chosen)}: expected each once, in the model's order: {', '.join(known)}")
    if len(matched) < 2:
        raise UserError(f"{OPTION}{list(chosen)}: {len(matched)} node layer; expected at least 2 of {', '.join(known)}")
    return tuple(layer for layer in known if layer in matched)


def is_pattern(entry: str) -> bool:
    """Whether an entry of `analysis.node_layers` stands for several names."""
    return bool(WILDCARDS & set(entry))


def matching(pattern: str, known: Sequence[str]) -> set[str]:
    """Node layers that a pattern matches. Raises UserError where there are none."""
    found = {layer for layer in known if fnmatchcase(layer, pattern)}
    if not found:
        raise UserError(f"{OPTION}{pattern}: matches no node layer; expected some of {', '.join(known)}")
    return found


def check_node_layer(layer: str, known: Sequence[str], option: str) -> None:
    """Raises UserError for a name that is no node layer's."""
    if layer not in known:
        raise UserError(
            f"{option}{layer}: no such node layer{nearest(layer, known)}; expected some of {', '.join(known)}"
        )
