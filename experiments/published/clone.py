"""A clone of the paper's public repository into one folder per model and seed.

OUT/<model>/seed<S>/checkpoint.safetensors
OUT/<model>/seed<S>/<method>.safetensors        as graph.safetensors
OUT/<model>/seed<S>/<method>_ablations.json     as ablations.json
OUT/<model>/seed<S>/<method>_labels.json        {layer: [feature: [{share, term}]]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.pipeline.json_files import write_json
from experiments.published.graphs import SUFFIX, PublishedGraph
from experiments.published.results import ablations_of, labels_of
from libcore.tensor_files import write_tensors
from models.errors import UserError
from models.weights import CheckpointError, ModelFile
from models.whole_files import written_whole


def import_clone(clone: Path, out: Path) -> Iterator[str]:
    """A line for every graph that has been written with what belongs to it. Raises UserError."""
    if not clone.is_dir():
        raise UserError(f"{clone}: no such folder; expected a clone of the paper's public repository")
    paths = sorted(clone.rglob(f"*{SUFFIX}"))
    if not paths:
        raise UserError(f"{clone}: no *{SUFFIX} below it; expected a clone of the paper's public repository")
    for path in paths:
        graph = PublishedGraph.read(path)
        folder = out / graph.model / f"seed{graph.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        written = [write_graph(graph, folder), *write_results(graph, path.parent, folder)]
        checkpoint = None if graph.checkpoint is None else file_of(clone, graph.checkpoint)
        if checkpoint is not None:
            written.append(write_checkpoint(checkpoint, folder))
        yield f"{path.relative_to(clone)}: {', '.join(written)} in {folder}"


def write_graph(graph: PublishedGraph, folder: Path) -> str:
    """Its tensors, and where they come from."""
    header = {"node_layers": json.dumps(list(graph.layers.values())), "method": graph.method, "published": graph.name}
    with written_whole(folder / f"{graph.method}.safetensors") as path:
        write_tensors(path, graph.tensors, header)
    return f"{graph.method}.safetensors"


def write_results(graph: PublishedGraph, beside: Path, folder: Path) -> Iterator[str]:
    """Ablations and labels, where they lie beside the graph."""
    found = {
        "ablations": ablations_of(beside, graph.name, graph.layers),
        "labels": labels_of(beside / f"{graph.name}_labels.csv", list(graph.layers.values())),
    }
    for kind, content in found.items():
        if content is not None:
            name = f"{graph.method}_{kind}.json"
            write_json(folder / name, content)
            yield name


def write_checkpoint(path: Path, folder: Path) -> str:
    """The weights by the names that they have."""
    try:
        file = ModelFile.read(path)
    except CheckpointError as error:
        raise UserError(str(error)) from error
    with written_whole(folder / "checkpoint.safetensors") as whole:
        write_tensors(whole, file.tensors, file.header)
    return "checkpoint.safetensors"


def file_of(clone: Path, named: str) -> Path | None:
    """The file that a configuration names, relative to the clone or to wherever its author had it."""
    parts = Path(named).parts
    candidates = (clone.joinpath(*parts[first:]) for first in range(int(Path(named).is_absolute()), len(parts)))
    return next((path for path in candidates if path.is_file()), None)
