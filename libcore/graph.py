"""The interaction graph: bases and edges of all node layers, and its file (FILES.md, `graph.safetensors`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from libcore import codec
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators import Estimator, edges
from libcore.estimators.stochastic import PROBES, Probes
from libcore.fit_settings import MEMORY_BUDGET, working_dtype
from libcore.identification import Movement
from libcore.messages import one_line
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import LayerStatistics
from libcore.tensor_files import read_tensors, write_tensors


@dataclass(frozen=True)
class InteractionGraph:
    """Features of every node layer and how strongly those of adjacent layers interact.

    Attributes:
        node_layers: names, first to last.
        statistics: moments of the activations that everything was fitted on.
        bases: one per node layer.
        edges: `edges[layer]`, `[k_next, k]`, squared strengths from `layer` to the next node layer; none for the last.
        metadata: method, resolved config, versions: strings, kept in the file's header.
        movements: how far features move if they are fitted again (`libcore.identification`), where that was looked at.
    """

    node_layers: tuple[str, ...]
    statistics: dict[str, LayerStatistics]
    bases: dict[str, Basis]
    edges: dict[str, Float[Tensor, "feature_out feature_in"]]
    metadata: dict[str, str] = field(default_factory=dict)
    movements: dict[str, Movement] = field(default_factory=dict)

    def pairs(self) -> list[tuple[str, str]]:
        """Adjacent node layers `(layer, next layer)`."""
        return list(zip(self.node_layers, self.node_layers[1:], strict=False))

    def variable_edges(self, layer: str) -> Float[Tensor, "feature_out feature_in"]:
        """Edges from `layer` without those that leave or enter a constant feature."""
        next_layer = self.node_layers[self.node_layers.index(layer) + 1]
        return self.edges[layer][self.bases[next_layer].variable, self.bases[layer].variable]

    def save(self, path: Path | str) -> None:
        """Write the file; `path` is only ever a whole file if the caller renames it into place."""
        tensors = codec.tensors_of_statistics(self.statistics) | codec.tensors_of_bases(self.bases)
        tensors |= codec.tensors_of_edges(self.edges) | codec.tensors_of_movements(self.movements)
        header = {
            "node_layers": json.dumps(self.node_layers),
            "constant": json.dumps([layer for layer in self.node_layers if self.bases[layer].has_constant]),
        } | {key: json.dumps(value) for key, value in codec.values_of_statistics(self.statistics).items()}
        write_tensors(path, tensors, self.metadata | header)

    @classmethod
    def load(cls, path: Path | str) -> InteractionGraph:
        """Read a file that `save` wrote.

        Raises ValueError naming what is missing, or for a file that is no safetensors; FileNotFoundError for none.
        """
        try:
            tensors, metadata = read_tensors(path)
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path}: not readable as safetensors ({one_line(error)}); expected what save wrote"
            ) from error
        for key in ("node_layers", "constant"):
            if key not in metadata:
                wanted = key.replace("_", " ")
                raise ValueError(f"{path}: no {wanted} in the header; expected a graph.safetensors of a run")
        node_layers = tuple(json.loads(metadata.pop("node_layers")))
        constant = json.loads(metadata.pop("constant"))
        values = {key: json.loads(metadata.pop(key, "{}")) for key in ("count", "isolated")}
        try:
            statistics = codec.statistics_from(tensors, values, node_layers)
            bases = codec.bases_from(tensors, constant.__contains__, node_layers)
        except KeyError as error:
            kinds = ", ".join((*codec.OF_STATISTICS, *codec.OF_BASES))
            raise ValueError(f"{path}: {error.args[0]} is missing; expected {kinds} of every node layer") from error
        edges, movements = codec.edges_from(tensors, node_layers), codec.movements_from(tensors, node_layers)
        return cls(node_layers, statistics, bases, edges, metadata, movements)


def interaction_edges(
    chain: Chain,
    inputs: Tensor,
    bases: dict[str, Basis],
    quadrature: Quadrature = GRADIENT,
    estimator: Estimator = "auto",
    memory_budget: int = MEMORY_BUDGET,
    probes: Probes = PROBES,
    on_error: Callable[[str, float], None] = lambda layer, relative_error: None,
) -> dict[str, Float[Tensor, "feature_out feature_in"]]:
    """Edges between all adjacent node layers on these inputs (METHOD.md 3), float64.

    `on_error` is called with each layer's name and estimated relative error where the estimator samples by `probes`.
    """
    strengths: dict[str, Tensor] = {}
    dtype = working_dtype(chain, inputs)
    streams = chain.streams(inputs, memory_budget)
    for index, section in enumerate(chain.sections):
        layer, next_layer = chain.node_layers[index], chain.node_layers[index + 1]
        strengths[layer] = edges(
            section,
            streams[index],
            bases[layer].to(dtype=dtype),
            bases[next_layer].to(dtype=dtype),
            quadrature,
            estimator,
            probes.named(f"edges/{layer}"),
            partial(on_error, layer),
        )
    return strengths
