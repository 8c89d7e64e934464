"""Weights & Biases behind one small module.

A run is opened before its model is trained or loaded, told what happens while it happens, and closed with its outcome.
`offline` (the default) needs neither account nor network and leaves a folder that `wandb sync` uploads; `disabled`
imports nothing and leaves nothing. A tracker that fails takes no result with it: it is left alone from then on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.config.model_titles import model_title
from experiments.config.schema import LONGEST_TAG, RunConfig, TrackingConfig
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.metrics import Metrics, aliases
from experiments.pipeline.tracking_environment import mode_of, with_environment
from experiments.pipeline.tracking_service import (
    leave_service_alone,
    mode_now,
    wandb_module,
)
from libcore.messages import one_line
from models.training_state import TrainingEvaluation

log = logging.getLogger(__name__)

DEFAULT_PROJECT = "local-interaction-basis"
SUCCEEDED, FAILED, INTERRUPTED = 0, 1, 130
INIT_SECONDS, FINISH_SECONDS, MANY_SECONDS = 8.0, 16.0, 600.0
"""For a service that does not answer, at the start and at the end; for artifacts, and for what is written here."""


def check_tracking(config: TrackingConfig) -> None:
    """Before any run starts: raises UserError where `online` has no account, or one that the service refuses."""
    if mode_of(config) != "disabled":
        with_environment(config)
        mode_now(config)


class Tracker:
    """One W&B run, or none; whatever it is told to log, it does not raise."""

    def __init__(self, run: Any = None) -> None:
        self._run = run
        self._logged_steps: set[int] = set()

    def _log(self, what: Callable[[Any], object]) -> None:
        """Do it, or say once that tracking has failed, and leave it."""
        if self._run is None:
            return
        try:
            what(self._run)
        except Exception as error:  # whatever W&B runs into, the run itself goes on
            log.warning("tracking failed, the run's own files are not affected: %s", one_line(error))
            self._run = None

    def training(self, evaluation: TrainingEvaluation) -> None:
        """How training stands; an evaluation that was logged is not logged again."""
        if evaluation.step in self._logged_steps:
            return
        row = {f"training/{name}": value for name, value in vars(evaluation).items()}
        if not self._logged_steps:
            self._log(lambda run: chart(run, "training/step", list(row)))
        self._logged_steps.add(evaluation.step)
        self._log(lambda run: run.log(row))

    def stage(self, metrics: Metrics) -> None:
        """What a stage has found and taken, when it ends."""
        self._log(lambda run: run.log(metrics))

    def ablations(self, ablations: Ablations) -> None:
        """A chart for each kind of ablation with a line for each node layer, drawn against what was kept."""
        for kind, curves in (("node_ablation", ablations.nodes), ("edge_ablation", ablations.edges)):
            names = [f"{kind}/{layer}" for layer in curves]
            self._log(lambda run, kind=kind, names=names: chart(run, f"{kind}/kept", names))
            for kept in sorted({kept for curve in curves.values() for kept in curve.score_by_kept}):
                row: dict[str, float] = {
                    f"{kind}/{layer}": curve.score_by_kept[kept]
                    for layer, curve in curves.items()
                    if kept in curve.score_by_kept
                }
                self._log(lambda run, row={f"{kind}/kept": kept} | row: run.log(row))

    def results(self, metrics: Metrics, figures: Mapping[str, Path], artifacts: Sequence[Path]) -> None:
        """The summary is `metrics` and aliases that W&B can sort by; figures and pages; files kept as artifacts."""

        def log_results(run: Any) -> None:
            wandb = wandb_module()
            media: dict[str, Any] = {}
            for path in figures.values():
                # A full stop would keep it in the summary, whatever is defined.
                name = f"figures/{path.stem.replace('.', '_')}"
                if path.suffix == ".png":
                    media[name] = wandb.Image(str(path))
                elif path.suffix == ".html":
                    media[name] = wandb.Html(path.read_text(encoding="utf-8"), inject=False)
            if media:
                run.define_metric("figures/*", summary="none")
                run.log(media)
            for path in artifacts:
                artifact = wandb.Artifact(f"{path.stem}-{run.id}", type=path.stem)
                artifact.add_file(str(path), policy="immutable")
                run.log_artifact(artifact)
            run.summary.update(metrics | aliases(metrics))

        self._log(log_results)

    def close(self, exit_code: int) -> None:
        """End the run with its outcome."""
        if (run := self._run) is None:
            return
        folder, is_offline = os.path.relpath(run.settings.sync_dir), run.settings.mode == "offline"
        self._log(lambda run: run.finish(exit_code=exit_code))
        if is_offline or self._run is None:
            log.info("tracking: `wandb sync %s` uploads the run", folder)
        self._run = None


def chart(run: Any, axis: str, names: Sequence[str]) -> None:
    """Have `names` drawn against `axis`, and none of them stand in the summary, which is the results'."""
    run.define_metric(escaped(axis), hidden=True, summary="none")
    for name in names:
        if name != axis:
            run.define_metric(escaped(name), step_metric=axis, summary="none")


def escaped(name: str) -> str:
    """A metric's name as W&B defines it: without the backslash a full stop would be a path's."""
    return name.replace(".", "\\.")


@contextmanager
def tracked(
    config: RunConfig,
    directory: Path,
    environment: Callable[[], Mapping[str, Any]],
    sweep: str | None = None,
    notes: str | None = None,
) -> Generator[Tracker, None, None]:
    """A tracker for one run, its folder `directory/wandb`; closed as finished, failed or interrupted.

    `sweep` groups the runs of one sweep; `notes` are what the run is described by where the configuration does not say.
    """
    tracker = Tracker(opened(config, directory, environment, sweep, notes))
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.close(INTERRUPTED)
        raise
    except BaseException:
        tracker.close(FAILED)
        raise
    tracker.close(SUCCEEDED)


def opened(
    config: RunConfig,
    directory: Path,
    environment: Callable[[], Mapping[str, Any]],
    sweep: str | None,
    notes: str | None,
) -> Any:
    """W&B's run; None where tracking is disabled, or fails."""
    mode = mode_now(config.tracking)
    if mode == "disabled":
        return None
    tracking = with_environment(config.tracking)
    half = [f"{config.analysis.half}-half"] if config.analysis.half is not None else []
    title, found = model_title(config.model.model_dump()), environment()
    return open_run(
        tracking,
        mode,
        directory,
        name=tracking.name or "-".join([title, config.method.name, f"seed{config.seed}", *half]),
        group=tracking.group or sweep,
        job_type=os.environ.get("WANDB_JOB_TYPE") or "analysis",
        notes=tracking.notes or notes,
        tags=[title, config.method.name],
        config=config.model_dump() | {"environment": dict(found)},
        git_commit=(found.get("git_commit") or "").partition("+")[0] or None,
    )


def open_run(
    tracking: TrackingConfig,
    mode: str,
    directory: Path,
    *,
    tags: Sequence[str],
    git_commit: str | None = None,
    **arguments: Any,
) -> Any:
    """A W&B run, offline where the service does not answer; None where neither can be begun."""
    own_tags = [*tags, *tracking.tags, *filter(None, os.environ.get("WANDB_TAGS", "").split(","))]
    arguments |= {
        "project": tracking.project or DEFAULT_PROJECT,
        "entity": tracking.entity,
        "tags": list(dict.fromkeys(tag[:LONGEST_TAG] for tag in own_tags)),
        "dir": directory,
        "reinit": "finish_previous",
    }
    try:
        wandb = wandb_module()
        if os.environ.get("WANDB_SWEEP_ID"):  # the sweep's own, which W&B takes without a word only if none is given
            del arguments["project"], arguments["entity"]
        try:
            run = wandb.init(mode=mode, settings=run_settings(tracking, mode, git_commit), **arguments)
        except wandb.errors.CommError as error:
            log.warning("tracking: W&B does not answer (%s): the run is logged offline", one_line(error))
            leave_service_alone()
            run = wandb.init(mode="offline", settings=run_settings(tracking, "offline", git_commit), **arguments)
        return run
    except Exception as error:  # whatever W&B runs into, the run itself goes on
        log.warning("tracking failed, the run's own files are not affected: %s", one_line(error))
        return None


def run_settings(tracking: TrackingConfig, mode: str, git_commit: str | None) -> Any:
    """How W&B behaves: without a word on the terminal, without the user's code, and not longer than it may take."""
    seconds = FINISH_SECONDS if mode == "online" and not tracking.artifacts else MANY_SECONDS
    return wandb_module().Settings(
        silent=True,
        console="off",
        disable_git=True,
        git_commit=git_commit,
        disable_code=True,
        save_code=False,
        x_save_requirements=False,  # a fifth of a second to list what is installed
        init_timeout=INIT_SECONDS,
        finish_timeout=seconds,
        finish_timeout_raises=True,
    )
