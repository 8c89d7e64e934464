"""Which node layers' features and outgoing edges are ablated: names and patterns against a model's own."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.config.schema import RunConfig
from libcore.ablation import Ablated
from models.errors import UserError
from models.node_layer_selection import select_names


def ablated(config: RunConfig, node_layers: Sequence[str]) -> Ablated:
    """Of a model with these node layers; raises UserError for a name that is none of them."""
    ablate = config.analysis.ablate

    def chosen(key: str, names: list[str] | None) -> tuple[str, ...] | None:
        try:
            return None if names is None else select_names(names, node_layers[:-1], at_least=0)
        except ValueError as error:
            raise UserError(f"analysis.ablate.{key}={error}") from error

    return Ablated(chosen("nodes", ablate.nodes), chosen("edges", ablate.edges), ablate.node_search == "every")
