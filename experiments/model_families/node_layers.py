"""`analysis.node_layers`: which node layers a run analyses."""

from __future__ import annotations

from collections.abc import Sequence

from models.errors import UserError
from models.node_layer_selection import check_name, select_names

OPTION = "analysis.node_layers="


def select_node_layers(chosen: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The chosen ones of the model's node layers (see `select_names`); all by default. Raises UserError."""
    if chosen is None:
        return tuple(known)
    try:
        return select_names(chosen, known)
    except ValueError as error:
        raise UserError(f"{OPTION}{error}") from error


def check_node_layer(layer: str, known: Sequence[str], option: str) -> None:
    """Raises UserError for a name that is no node layer's."""
    try:
        check_name(layer, known)
    except ValueError as error:
        raise UserError(f"{option}{error}") from error
