"""Weights & Biases behind one small module: nothing else imports it.

`offline` (the default) needs neither account nor network and leaves a run folder that `wandb sync` uploads; `disabled`
imports nothing and leaves nothing. A tracker that fails takes no result with it: all files are written before it logs.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from experiments.config.schema import RunConfig, TrackingConfig
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.metrics import Metrics
from models.errors import UserError

log = logging.getLogger(__name__)
DEFAULT_HOST = "https://api.wandb.ai"


@dataclass(frozen=True)
class TrackedRun:
    """What is logged of a finished run.

    Attributes:
        name: shown in the list of runs.
        config: the resolved configuration.
        metrics: the run's summary, exactly what `metrics.json` holds.
        curves: tables by name: column names and rows.
        figures: PNG files by name.
        pages: HTML files by name.
    """

    name: str
    tags: Sequence[str]
    group: str | None
    config: dict[str, Any]
    metrics: dict[str, float | int]
    curves: dict[str, tuple[list[Any], list[Any]]]
    figures: dict[str, Path]
    pages: dict[str, Path]


def tracked_run(
    config: RunConfig, metrics: Metrics, ablations: Ablations | None, figures: dict[str, Path], sweep: str | None
) -> TrackedRun:
    """What the tracker is told."""
    curves: dict[str, tuple[list[str], list[list[Any]]]] = {}
    if ablations is not None:
        for kind, by_layer in (("node_ablation", ablations.nodes), ("edge_ablation", ablations.edges)):
            rows = [
                [layer, n, score]
                for layer, curve in by_layer.items()
                for n, score in sorted(curve.score_by_kept.items())
            ]
            curves[f"curves/{kind}"] = (["layer", "kept", "score"], rows)
    half = [f"{config.analysis.half}-half"] if config.analysis.half is not None else []
    return TrackedRun(
        name="-".join([config.model.kind, config.method.name, f"seed{config.seed}", *half]),
        tags=[config.model.kind, config.method.name, *config.tracking.tags],
        group=config.tracking.group or sweep,
        config=config.model_dump(),
        metrics=metrics,
        curves=curves,
        figures={f"figures/{path.stem}": path for path in figures.values() if path.suffix == ".png"},
        pages={f"figures/{path.stem}": path for path in figures.values() if path.suffix == ".html"},
    )


def check_tracking(config: TrackingConfig) -> None:
    """Raises UserError where `online` has no account to log to."""
    if config.mode != "online" or os.environ.get("WANDB_API_KEY"):
        return
    host = urlparse(os.environ.get("WANDB_BASE_URL", DEFAULT_HOST)).netloc
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        path = Path(file or "").expanduser()
        if file and path.is_file() and has_account(path, host):
            return
    raise UserError(
        "tracking.mode=online: no W&B account is logged in; expected `wandb login` first, or tracking.mode=offline"
    )


def has_account(path: Path, host: str) -> bool:
    """Whether a netrc file has credentials for this host; one that cannot be read has none."""
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return False


def track(config: TrackingConfig, run: TrackedRun, directory: Path) -> str:
    """Log a finished run below `directory`; returns `logged`, `disabled`, or `failed: ` with the reason."""
    if config.mode == "disabled":
        return "disabled"
    try:
        log_to_wandb(config, run, directory)
    except Exception as error:  # whatever the service does, the run's own files are complete and stay so
        log.warning("tracking failed, the run's files are complete: %s", error)
        return f"failed: {error}"
    return "logged"


def log_to_wandb(config: TrackingConfig, run: TrackedRun, directory: Path) -> None:
    """One W&B run with summary, tables, figures and pages."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True)
    wandb_run = wandb.init(
        mode=config.mode,
        project=config.project,
        group=run.group,
        name=run.name,
        tags=list(run.tags),
        config=run.config,
        dir=directory,
        reinit="finish_previous",
        settings=settings,
    )
    try:
        tables = {name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in run.curves.items()}
        figures = {name: wandb.Image(str(path)) for name, path in run.figures.items()}
        pages = {name: wandb.Html(path.read_text(encoding="utf-8"), inject=False) for name, path in run.pages.items()}
        wandb_run.log(tables | figures | pages)
        wandb_run.summary.update(run.metrics)
    finally:
        wandb_run.finish()
