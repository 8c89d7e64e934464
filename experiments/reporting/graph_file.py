"""`graph.safetensors` of one run, checked by its header and then by its numbers before anything draws it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from experiments.pipeline.feature_table import FeatureTable
from experiments.reporting.run_files import DamagedRunError, expect, is_mapping, read_file
from libcore.codec import OF_MOVEMENTS
from libcore.graph import InteractionGraph
from libcore.regular_files import refuse_irregular

GRAPH = "graph.safetensors"
Shapes = dict[str, list[int]]
NUMBERS = ("F64", "F32", "F16", "BF16")
"""safetensors' names of what a graph's numbers may be."""


def read_graph(directory: Path) -> InteractionGraph | None:
    """The graph; None where the run has none. Raises DamagedRunError."""
    path = directory / GRAPH
    if not path.exists():
        return None
    expect(not path.is_dir(), GRAPH, "a file, not a directory")
    read_file(path, check_header)
    graph = read_file(path, InteractionGraph.load)
    for layer, basis in graph.bases.items():
        expect(bool(torch.isfinite(basis.importance).all()), GRAPH, f"finite numbers as importance/{layer}")
    for layer, strengths in graph.edges.items():
        usable = torch.isfinite(strengths).all() and (strengths >= 0).all()
        expect(bool(usable), GRAPH, f"finite numbers from zero up as edges/{layer}")
    return graph


def check_header(path: Path) -> None:
    """Names, kinds and shapes of all tensors. Raises DamagedRunError."""
    try:
        refuse_irregular(path)
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
            shapes: Shapes = {name: of_tensor.get_shape() for name, of_tensor in slices.items()}
            kinds = {name: of_tensor.get_dtype() for name, of_tensor in slices.items()}
    except SafetensorError as error:
        raise DamagedRunError(f"{GRAPH}: not readable as safetensors ({error})") from error
    layers = json.loads(header.get("node_layers", "null"))
    is_list = isinstance(layers, list) and all(isinstance(layer, str) for layer in layers)
    expect(is_list and len(layers) == len(set(layers)) > 0, GRAPH, "a list of node layers in the header")
    constant = json.loads(header.get("constant", "null"))
    expect(isinstance(constant, list), GRAPH, "a list of layers with the constant in the header")
    counts, isolated = (json.loads(header.get(key, "null")) for key in ("count", "isolated"))
    expect(is_mapping(counts), GRAPH, "an object as count in the header")
    expect(isolated is None or is_mapping(isolated), GRAPH, "an object as isolated in the header")
    for layer in layers:
        check_layer(shapes, layer)
        expect(layer in counts, GRAPH, f"the count of {layer} in the header")
    for layer, following in pairwise(layers):
        edges = shapes.get(f"edges/{layer}")
        wanted = [shapes[f"to_basis/{following}"][1], shapes[f"to_basis/{layer}"][1]]
        expect(edges in (None, wanted), GRAPH, f"the shape {wanted} of edges/{layer}")
    expect(f"edges/{layers[-1]}" not in shapes, GRAPH, f"no edges from the last node layer {layers[-1]}")
    for name, kind in kinds.items():
        expect(kind in NUMBERS, GRAPH, f"floating-point numbers as {name}")


def check_layer(shapes: Shapes, layer: str) -> None:
    """Shapes of one node layer's basis and moments. Raises DamagedRunError."""
    names = [f"{part}/{layer}" for part in ("to_basis", "from_basis", "importance", "mean", "gram")]
    for name in names:
        expect(name in shapes, GRAPH, f"a tensor {name}")
    to_basis, from_basis, importance, mean, gram = (shapes[name] for name in names)
    expect(len(to_basis) == 2 and min(to_basis) > 0, GRAPH, f"a matrix as to_basis/{layer}")
    d, k = to_basis
    for name, found, wanted in ((names[1], from_basis, [k, d]), (names[3], mean, [d]), (names[4], gram, [d, d])):
        expect(found == wanted, GRAPH, f"the shape {wanted} of {name}")
    for name in (f"{part}/{layer}" for part in OF_MOVEMENTS):
        expect(shapes.get(name, [k]) == [k], GRAPH, f"{k} numbers as {name}")
    expect(len(importance) == 1 and importance[0] >= k, GRAPH, f"{k} numbers or more as {names[2]}")


def check_table(graph: InteractionGraph, table: FeatureTable) -> None:
    """One label and one community for every feature. Raises DamagedRunError."""
    for layer in graph.node_layers:
        n_features = graph.bases[layer].n_features
        for key, part in (("labels", table.labels), ("communities", table.communities)):
            expect(len(part.get(layer, ())) == n_features, "features.json", f"{n_features} {key} of {layer}")
