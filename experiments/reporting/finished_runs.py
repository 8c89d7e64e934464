"""Finding runs below folders, and reading what a finished one left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from experiments.figures.groups import group_of
from experiments.figures.of_run import run_label
from experiments.pipeline.ablations import Ablations, ablations_from_json
from experiments.pipeline.feature_table import FeatureTable
from libcore.graph import InteractionGraph
from models.errors import UserError


@dataclass(frozen=True)
class FinishedRun:
    """A run whose `status.json` says it is finished.

    Attributes:
        options: ` (power=2)`, where a report holds runs of the same method that differ in it (`tell_apart`).
    """

    directory: Path
    config: dict[str, Any]
    metrics: dict[str, float | int | None]
    options: str = ""

    @property
    def model(self) -> str:
        """The model's kind."""
        return self.config["model"]["kind"]

    @property
    def method(self) -> str:
        """The method's name; a variant that is not the method's default is named with it, as a method of its own."""
        return group_of(self.config["method"]) + self.options

    @property
    def seed(self) -> int:
        """The training seed."""
        return self.config["seed"]

    @property
    def half(self) -> str | None:
        """Which half of the examples it was fitted on; None for all of them."""
        return self.config.get("analysis", {}).get("half")

    @property
    def label(self) -> str:
        """`seed 0, first half`: what tells it apart from other runs of its method and setting."""
        return run_label(self.seed, self.half)

    def setting(self) -> str:
        """All of the configuration but method, seed and which half of the data: runs are averaged where it is equal."""
        rest = {
            key: value
            for key, value in self.config.items()
            if key not in ("method", "seed", "tracking", "output_directory")
        }
        analysis = {key: value for key, value in rest.get("analysis", {}).items() if key != "half"}
        rest["analysis"] = analysis | ({"half": "one of two"} if self.half is not None else {})
        if rest["model"].get("checkpoint") and self.model != "pretrained_transformer":
            # One checkpoint per seed is how trained seeds come in from outside; pretrained ones are different models.
            rest = rest | {"model": rest["model"] | {"checkpoint": "given"}}
        return json.dumps(rest, sort_keys=True)

    def ablations(self) -> Ablations | None:
        """Curves and needed counts, where the run ablated."""
        path = self.directory / "ablations.json"
        return ablations_from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def graph(self) -> InteractionGraph | None:
        """Bases and edges, where the run has any."""
        path = self.directory / "graph.safetensors"
        return InteractionGraph.load(path) if path.is_file() else None

    def table(self) -> FeatureTable | None:
        """Labels and communities."""
        path = self.directory / "features.json"
        return FeatureTable(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that has no results, and why."""

    directory: Path
    reason: str


def tell_apart(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The same runs; those of one method's name whose options differ are named with what differs."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run.config["method"] not in (of_name := parts.setdefault(run.method, [])):
            of_name.append(run.config["method"])
    return [replace(run, options=differing(run.config["method"], parts[run.method])) for run in runs]


def differing(part: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    """What of a method's options is not the same in all of these, as ` (power=2)`; empty for nothing."""
    keys = dict.fromkeys(key for other in others for key in other if key != "label")
    texts = [f"{key}={part.get(key)}" for key in keys if any(other.get(key) != part.get(key) for other in others)]
    return f" ({', '.join(texts)})" if texts else ""


def find_runs(folders: Iterable[Path]) -> tuple[list[FinishedRun], list[UnfinishedRun]]:
    """All runs in or below these folders, each once. Raises UserError for a folder without any."""
    finished: list[FinishedRun] = []
    unfinished: list[UnfinishedRun] = []
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected a run's directory, or one with runs below it")
        # A directory that a run was given and that has no status is a run that never began to write.
        directories = sorted({path.parent for name in ("status.json", "run.log") for path in folder.rglob(name)})
        if not directories:
            raise UserError(f"{folder}: no runs here; expected status.json files below it")
        for directory in directories:
            if directory.resolve() not in seen:
                seen.add(directory.resolve())
                run = read_run(directory)
                (finished if isinstance(run, FinishedRun) else unfinished).append(run)  # pyright: ignore[reportArgumentType]
    return finished, unfinished


def read_run(directory: Path) -> FinishedRun | UnfinishedRun:
    """One run's configuration and metrics; a run that did not finish, or is damaged, is named with the reason."""
    try:
        status = json.loads((directory / "status.json").read_text(encoding="utf-8"))
        if status["status"] == "failed":
            return UnfinishedRun(directory, f"failed: {status['reason']}")
        if status["status"] != "finished":
            return UnfinishedRun(directory, "running, or stopped without a word")
        config = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"))
        metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        assert isinstance(config, dict)
        if missing := [key for key in ("model", "method", "seed") if key not in config]:
            return UnfinishedRun(directory, f"not readable: config.yaml has no {missing[0]}")
        return FinishedRun(directory, {str(key): value for key, value in config.items()}, metrics)
    except (OSError, ValueError, KeyError, TypeError, YAMLError) as error:
        return UnfinishedRun(directory, f"not readable: {error}")
