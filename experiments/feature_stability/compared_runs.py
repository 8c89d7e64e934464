"""Runs whose features are compared: read, checked, and whether they are of the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from experiments.config.analysis_schema import bytes_of
from experiments.config.run_directory import read_status
from experiments.figures.groups import group_label
from experiments.pipeline.ablations import Ablations
from experiments.reporting.finished_runs import FinishedRun, read_run, tell_apart
from libcore.graph import InteractionGraph
from models import validated_model
from models.errors import UserError
from models.room import Room, room_of
from models.schema import ModelSettings
from models.weights import CheckpointError, ModelFile

MODEL_FILE = "model.safetensors"
LEADING_SHARE = 0.99
"""Of the sum of importances, which leading features hold where nothing was ablated."""


@dataclass(frozen=True)
class ComparedRun:
    """One run with its graph."""

    run: FinishedRun
    graph: InteractionGraph

    @property
    def directory(self) -> Path:
        """The run's."""
        return self.run.directory

    @property
    def title(self) -> str:
        """`LIB, seed 0, first half`, and the dtype where it is not float64."""
        dtype = self.run.config.get("dtype", "float64")
        return ", ".join([group_label(self.run.method), self.run.label, *([dtype] if dtype != "float64" else [])])

    @cached_property
    def ablations(self) -> Ablations | None:
        """Where the run ablated."""
        return self.run.ablations()

    @cached_property
    def room(self) -> Room[Any]:
        """The run's model as its configuration has it; raises UserError."""
        config = self.run.config
        data, analysis = config.get("data", {}), config.get("analysis", {})
        node_layers = analysis.get("node_layers")
        settings = ModelSettings(
            model=validated_model(config["model"]),
            seed=self.run.seed,
            data_root=Path(data.get("root", "data")),
            data_path=data.get("path"),
            node_layers=None if node_layers is None else tuple(node_layers),
            cache=Path(config.get("output_directory", "outputs")) / "cache",
            memory_budget=bytes_of(analysis.get("memory_budget", "128MB")),
        )
        return room_of(settings)

    @cached_property
    def model(self) -> ModelFile:
        """The analysed weights, from the run's directory or by their name; raises UserError."""
        weights = (read_status(self.directory) or {}).get("weights", {})
        if "file" not in weights and "name" in weights:
            return self.named_model(weights)
        try:
            return ModelFile.read(self.directory / MODEL_FILE)
        except CheckpointError as error:
            raise UserError(str(error)) from error

    def named_model(self, weights: dict[str, Any]) -> ModelFile:
        """The weights of a name, if they are those that the run had; raises UserError."""
        model = self.room.initial()
        if model.hash != weights.get("sha256"):
            revision = f" of revision {weights['revision']}" if weights.get("revision") else ""
            raise UserError(
                f"{self.directory}: model.name={weights['name']} has other weights than the run had; "
                f"expected those{revision} with the hashes in its status.json"
            )
        return model

    def n_leading(self, layer: str) -> int:
        """Features that vary and that the model needs at the middle tolerance, else those of 99 % of the importance."""
        basis = self.graph.bases[layer]
        if self.ablations is not None and (curve := self.ablations.nodes.get(layer)) is not None and curve.needed:
            tolerances = sorted(curve.needed)
            needed = curve.needed[tolerances[len(tolerances) // 2]]
            return min(max(1, needed - basis.variable.start), basis.n_variable)
        importance = basis.importance[basis.variable][: basis.n_variable].double().clamp(min=0)
        shares = importance.cumsum(0) / importance.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return min(int((shares < LEADING_SHARE).sum()) + 1, basis.n_variable)


def read_runs(directories: Sequence[Path]) -> list[ComparedRun]:
    """In the order given. Raises UserError for what is no finished run with a basis, and for other node layers."""
    found: list[FinishedRun] = []
    for directory in directories:
        run = read_run(directory)
        if not isinstance(run, FinishedRun):
            raise UserError(f"{run}; expected the directory of a finished run")
        found.append(run)
    compared: list[ComparedRun] = []
    for run in tell_apart(found):
        if (graph := run.graph()) is None:
            raise UserError(f"{run.directory}: no graph.safetensors; expected a run with basis among its stages")
        compared.append(ComparedRun(run, graph))
    first = compared[0]
    for other in compared[1:]:
        if other.graph.node_layers != first.graph.node_layers:
            raise UserError(
                f"{other.directory}: node layers {', '.join(other.graph.node_layers)}; expected those of "
                f"{first.directory}: {', '.join(first.graph.node_layers)}"
            )
    return compared


def of_same_weights(first: ComparedRun, second: ComparedRun) -> bool:
    """Whether both analysed one model: activations are then the same functions of the input."""
    one, other = first.model.tensors, second.model.tensors
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
