"""The one pipeline: model, statistics, bases, edges, ablations, measures, files, figures, tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.config.model_checks import resolve_device
from experiments.config.run_directory import TRACKED, own_results, read_status
from experiments.config.schema import RunConfig
from experiments.config.scores import with_tolerances
from experiments.figures.of_run import draw_figures
from experiments.pipeline.ablations import ablations_to_json
from experiments.pipeline.analysis import RunResults, analyse
from experiments.pipeline.cache import StageCache
from experiments.pipeline.console import progress_of
from experiments.pipeline.environment import environment
from experiments.pipeline.estimate import estimate_metrics, tell
from experiments.pipeline.graph_header import graph_header
from experiments.pipeline.json_files import write_json, write_text
from experiments.pipeline.model_stage import model_file, model_stage
from experiments.pipeline.resources import keep_freed_memory, measured
from experiments.pipeline.stage_costs import costs_of_run
from experiments.pipeline.stages import score_stage
from experiments.pipeline.tracking import tracked
from libcore import processes
from models.analysed import AnalysedModel
from models.errors import UserError
from models.in_use import used
from models.room import Room, room_of
from models.weights import ModelFile
from models.whole_files import written_whole

log = logging.getLogger(__name__)

ARTIFACTS = ("graph.safetensors", "model.safetensors")
"""What `tracking.artifacts` keeps."""

ESTIMATED = frozenset({"config.yaml", "metrics.json", "timings.json"})
"""What an estimate leaves beside log and status."""


def run_pipeline(
    config: RunConfig,
    directory: Path,
    sweep: str | None,
    notes: str | None = None,
    begin: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Carry out one run and leave its files in `directory` (FILES.md). Returns what `status.json` says of its origin.

    `sweep` and `notes` are the tracker's (`tracked`); `begin` is called once the model and its data are there, before
    the first result is written. Raises UserError for what the user can mend; files already
    written stay, `status.json` is the caller's. Of several processes the first alone writes results.
    """
    room = room_of(config.model_settings)
    config = with_tolerances(config, room.score_name)
    device = resolve_device(config.device)
    torch.set_flush_denormal(True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    cache = StageCache(config.cache_directory, device)
    cache.directory.mkdir(parents=True, exist_ok=True)
    with (
        processes.joined(),
        cache.in_use,
        used(cache.directory),
        tracked(config, directory, partial(environment, device), sweep, notes) as tracker,
    ):
        results = RunResults(tracker)
        if config.analysis.estimate_only:
            return estimated(results, config, room, device, directory, begin)
        trained = model_stage(cache, room, tracker.training)
        results.finished("model", trained)
        log.info("model: %s", trained.result.values["summary"])
        if not trained.result.values["reached_target"]:
            log.warning("training ended before it met its criterion; the model is analysed as it is")
        file = model_file(trained)
        model = with_data(results, room, file, device)
        begin()
        write_text(directory / "config.yaml", to_yaml(config))
        if "score" in config.analysis.stages:
            scored = score_stage(cache, config, trained.identity, model)
            results.finished(
                "score", scored, {f"score/{split}": value for split, value in scored.result.values.items()}
            )
        analyse(results, config, cache, trained.identity, model, graph_header(config, room, file.hash))
        if processes.rank() > 0:
            return {}
        source = room.weights_source if room.model.randomize is None else None
        write_results(directory, results, file if source is None else None)
        figures = figures_of(results, config, directory, device, room.score_name)
        write_json(directory / "timings.json", results.timings)
        write_json(directory / "metrics.json", results.metrics)
        kept = [directory / name for name in ARTIFACTS] if config.tracking.artifacts else []
        tracker.results(results.metrics, figures, [path for path in kept if path.is_file()])
    return {
        "weights": {"sha256": file.hash} | ({"file": "model.safetensors"} if source is None else source),
        "cache": sorted([*results.entries, *room.kept_files()]),
    }


def estimated(
    results: RunResults,
    config: RunConfig,
    room: Room[Any],
    device: torch.device,
    directory: Path,
    begin: Callable[[], None],
) -> dict[str, Any]:
    """What the stages will take, for the log and `metrics.json`: of a model as it is before training, if it trains."""
    refuse_results(directory)
    model = with_data(results, room, room.initial(), device)
    begin()
    costs = costs_of_run(config, model)
    tell(costs, device)
    results.metrics |= estimate_metrics(costs, device)
    if processes.rank() == 0:
        write_text(directory / "config.yaml", to_yaml(config))
        write_json(directory / "timings.json", results.timings)
        write_json(directory / "metrics.json", results.metrics)
        results.tracker.results(results.metrics, {}, [])
    return {"cache": sorted(room.kept_files())}


def refuse_results(directory: Path) -> None:
    """Raises UserError where a run has left more than an estimate: it would give way to one."""
    status = read_status(directory)
    if status is None or status["status"] != "finished":
        return
    if any(name not in ESTIMATED and not name.startswith(f"{TRACKED}/") for name in own_results(directory)):
        raise UserError(f"{directory}: holds a run's results; expected another hydra.run.dir for an estimate")


def with_data(results: RunResults, room: Room[Any], file: ModelFile, device: torch.device) -> AnalysedModel:
    """The model with its data; what reading them took is told as a stage."""
    with measured(device) as resources:
        model = room.analysed(file, device)
    if room.reads_data:
        log.info("data: %.1f s", resources.seconds)
        results.ended("data", resources, {})
    return model


def figures_of(
    results: RunResults, config: RunConfig, directory: Path, device: torch.device, score_name: str
) -> dict[str, Path]:
    """Figures and pages by file name, none where the configuration leaves them out."""
    if "figures" not in config.analysis.stages or results.table is None or results.graph is None:
        return {}
    with progress_of("figures"), measured(device) as resources:
        figures = draw_figures(
            directory / "figures",
            config,
            results.graph,
            results.table,
            results.ablations,
            results.metrics,
            results.pictures,
            results.contexts,
            score_name,
            results.signed,
        )
    results.ended("figures", resources, {})
    log.info("figures: %.1f s", resources.seconds)
    return figures


def write_results(directory: Path, results: RunResults, model: ModelFile | None) -> None:
    """Graph, ablations, features and the analysed weights, where these are not to be had by a name."""
    if model is not None:
        model.write(directory / "model.safetensors")
    if results.graph is not None:
        with written_whole(directory / "graph.safetensors") as path:
            results.graph.save(path)
    if results.ablations is not None:
        write_json(directory / "ablations.json", ablations_to_json(results.ablations))
    if results.table is not None:
        write_json(
            directory / "features.json", {"labels": results.table.labels, "communities": results.table.communities}
        )


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as Hydra would print it."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))
