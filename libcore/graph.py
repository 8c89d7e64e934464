"""The interaction graph: bases and edges of all node layers, and its file (CONTRACT.md, `graph.safetensors`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators import Estimator, edges
from libcore.estimators.stochastic import PROBES, Probes
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import LayerStatistics

STORED = ("mean", "gram", "to_basis", "from_basis", "importance")
"""What the file holds of every node layer; edges beside them, where they were computed."""


@dataclass(frozen=True)
class InteractionGraph:
    """Features of every node layer and how strongly those of adjacent layers interact.

    Attributes:
        node_layers: names, first to last.
        statistics: moments of the activations that everything was fitted on.
        bases: one per node layer.
        edges: `edges[layer]`, `[k_next, k]`, squared strengths from `layer` to the next node layer; none for the last.
        metadata: method, resolved config, versions: strings, kept in the file's header.
    """

    node_layers: tuple[str, ...]
    statistics: dict[str, LayerStatistics]
    bases: dict[str, Basis]
    edges: dict[str, Float[Tensor, "feature_out feature_in"]]
    metadata: dict[str, str] = field(default_factory=dict)

    def pairs(self) -> list[tuple[str, str]]:
        """Adjacent node layers `(layer, next layer)`."""
        return list(zip(self.node_layers, self.node_layers[1:], strict=False))

    def variable_edges(self, layer: str) -> Float[Tensor, "feature_out feature_in"]:
        """Edges from `layer` without those that leave or enter a constant feature."""
        next_layer = self.node_layers[self.node_layers.index(layer) + 1]
        first_row = int(self.bases[next_layer].has_constant)
        first_column = int(self.bases[layer].has_constant)
        return self.edges[layer][first_row:, first_column:]

    def save(self, path: Path) -> None:
        """Write the file; `path` is only ever a whole file if the caller renames it into place."""
        tensors: dict[str, Tensor] = {}
        for layer in self.node_layers:
            basis, moments = self.bases[layer], self.statistics[layer]
            tensors |= {f"mean/{layer}": moments.mean, f"gram/{layer}": moments.gram}
            tensors |= {f"to_basis/{layer}": basis.to_basis, f"from_basis/{layer}": basis.from_basis}
            tensors[f"importance/{layer}"] = basis.importance
        tensors |= {f"edges/{layer}": strength for layer, strength in self.edges.items()}
        header = {
            "node_layers": json.dumps(self.node_layers),
            "constant": json.dumps([layer for layer in self.node_layers if self.bases[layer].has_constant]),
            "isolated": json.dumps({layer: self.statistics[layer].isolated for layer in self.node_layers}),
            "count": json.dumps({layer: self.statistics[layer].count for layer in self.node_layers}),
        }
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, path, metadata=self.metadata | header)

    @classmethod
    def load(cls, path: Path) -> InteractionGraph:
        """Read a file that `save` wrote. Raises ValueError naming what is missing."""
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        if "node_layers" not in metadata:
            raise ValueError(f"{path}: no node layers in the header; expected a graph.safetensors of a run")
        node_layers = tuple(json.loads(metadata.pop("node_layers")))
        wanted = [f"{kind}/{name}" for name in node_layers for kind in STORED]
        if missing := [key for key in wanted if key not in tensors]:
            raise ValueError(f"{path}: {missing[0]} is missing; expected {', '.join(STORED)} of every node layer")
        constant = json.loads(metadata.pop("constant"))
        count = json.loads(metadata.pop("count"))
        isolated = json.loads(metadata.pop("isolated", "{}"))
        return cls(
            node_layers,
            {
                name: LayerStatistics(
                    tensors[f"mean/{name}"], tensors[f"gram/{name}"], count[name], tuple(isolated.get(name, ()))
                )
                for name in node_layers
            },
            {
                name: Basis(
                    tensors[f"to_basis/{name}"],
                    tensors[f"from_basis/{name}"],
                    tensors[f"importance/{name}"],
                    name in constant,
                )
                for name in node_layers
            },
            {name: tensors[f"edges/{name}"] for name in node_layers if f"edges/{name}" in tensors},
            metadata,
        )


def interaction_edges(
    chain: Chain,
    inputs: Tensor,
    bases: dict[str, Basis],
    quadrature: Quadrature = GRADIENT,
    estimator: Estimator = "auto",
    memory_budget: int = 512 * 2**20,
    probes: Probes = PROBES,
    on_error: Callable[[str, float], None] = lambda layer, relative_error: None,
) -> dict[str, Float[Tensor, "feature_out feature_in"]]:
    """Edges between all adjacent node layers on these inputs (METHOD.md 3), float64.

    `on_error` is called with each layer's name and estimated relative error where the estimator samples by `probes`.
    """
    strengths: dict[str, Tensor] = {}
    dtype: torch.dtype = chain.embed(inputs[:1]).dtype
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
