"""Finding runs below folders, and reading what a finished one left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.figures.groups import group_of
from experiments.figures.of_run import model_label, run_label
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.feature_table import FeatureTable
from experiments.reporting.graph_file import check_table, read_graph
from experiments.reporting.run_files import (
    DamagedRunError,
    read_ablations,
    read_config,
    read_metrics,
    read_status,
    read_table,
)
from libcore.graph import InteractionGraph
from libcore.messages import one_line
from models.errors import UserError


@dataclass(frozen=True)
class FinishedRun:
    """A run whose `status.json` says it is finished; `read_run` has checked all of its files.

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
    def model_title(self) -> str:
        """What the model is called in titles and tables."""
        return model_label(self.config["model"])

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

    def ablations(self) -> Ablations | None:
        """Curves and needed counts, where the run ablated."""
        return read_ablations(self.directory)

    def graph(self) -> InteractionGraph | None:
        """Bases and edges, where the run has any; read each time, since a large model's are a hundred megabytes."""
        return read_graph(self.directory)

    def table(self) -> FeatureTable | None:
        """Labels and communities."""
        return read_table(self.directory)


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that has no results, and why."""

    directory: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.directory}: {self.reason}"


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


def check_folders(folders: Iterable[Path]) -> None:
    """Raises UserError for a folder that is not there or has no runs below it."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected a run's directory, or one with runs below it")
        if not run_directories(folder):
            raise UserError(f"{folder}: no runs here; expected status.json files below it")


def run_directories(folder: Path) -> list[Path]:
    """In or below a folder; one that holds a log alone is of a run that never began to write."""
    return sorted({path.parent for name in ("status.json", "run.log") for path in folder.rglob(name)})


def find_runs(folders: Iterable[Path]) -> tuple[list[FinishedRun], list[UnfinishedRun]]:
    """All runs in or below these folders, each once; a folder without any is an unfinished run itself."""
    finished: list[FinishedRun] = []
    unfinished: list[UnfinishedRun] = []
    seen: set[Path] = set()
    for folder in folders:
        for directory in run_directories(folder) or [folder]:
            if directory.resolve() not in seen:
                seen.add(directory.resolve())
                run = read_run(directory)
                (finished if isinstance(run, FinishedRun) else unfinished).append(run)  # pyright: ignore[reportArgumentType]
    return finished, unfinished


def read_run(directory: Path) -> FinishedRun | UnfinishedRun:
    """One run, its files read and checked; one that did not finish, or is damaged, is named with the reason."""
    if not directory.is_dir():
        return UnfinishedRun(directory, "no such directory: the run never began")
    try:
        status = read_status(directory)
        if status["status"] in ("failed", "interrupted"):
            reason = one_line(status.get("reason") or "no reason given")
            return UnfinishedRun(directory, reason if reason == "interrupted" else f"{status['status']}: {reason}")
        if status["status"] != "finished":
            return UnfinishedRun(directory, "running, or stopped without a word")
        run = FinishedRun(directory, read_config(directory), read_metrics(directory))
        run.ablations()
        graph, table = run.graph(), run.table()
        if graph is not None and table is not None:
            check_table(graph, table)
    except DamagedRunError as error:
        return UnfinishedRun(directory, f"not readable: {one_line(error)}")
    return run
