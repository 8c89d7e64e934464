"""One run in its directory: `status.json` says whether it is running, finished or failed, why, and what it left."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.causes import user_cause
from experiments.config.model_checks import resolve_device
from experiments.config.run_directory import (
    LOG,
    METRICS,
    STATUS,
    TRACKED,
    own_results,
    read_status,
    remove,
    results_in,
    sweep_temporaries,
)
from experiments.config.schema import RunConfig
from experiments.interruptions import reason_of, uninterrupted
from experiments.pipeline.clock import now
from experiments.pipeline.environment import environment, own_commit
from experiments.pipeline.run_pipeline import run_pipeline
from experiments.pipeline.status_file import begin_status, end_status
from experiments.reporting.run_files import shown_path
from libcore.messages import first_line
from models.content_hashes import file_hash
from models.errors import UserError

log = logging.getLogger(__name__)


def carry_out(
    config: RunConfig, directory: Path, sweep: tuple[str, int] | None = None, notes: str | None = None
) -> str:
    """The pipeline, and what `status.json` says of it. `finished`, `failed`, or `refused`: the user's error.

    `sweep` is the folder of its record and the number of the job in it; `notes` are the tracker's.
    """
    sweep_temporaries(directory)
    earlier, earlier_results = read_status(directory), own_results(directory)
    foreign = results_in(directory) - earlier_results
    status: dict[str, Any] = {"status": "running", "started": now()} | (
        {"sweep": os.path.relpath(sweep[0], directory), "job": sweep[1]} if sweep else {}
    )
    status |= {"from": folder_of(directory)}
    has_begun = earlier is None or earlier["status"] != "finished"

    def begin() -> None:
        """The model and its data are there: what an earlier run left gives way."""
        nonlocal has_begun
        has_begun = True
        begin_status(directory, status | {"foreign": sorted(foreign)})
        remove(directory, earlier_results)

    try:
        if has_begun:
            begin_status(directory, status | {"foreign": sorted(foreign)})
        own_commit()  # as the code is before the run, which may take hours
        status |= run_pipeline(config, directory, Path(sweep[0]).name if sweep else None, notes, begin) or {}
        status["environment"] = environment(resolve_device(config.device))
        log.info("finished: %s", shown_path(directory))
        status["status"] = outcome = "finished"
    except KeyboardInterrupt as interruption:
        status |= {"status": "interrupted", "reason": reason_of(interruption)}
        raise
    except Exception as error:  # a sweep's other runs go on
        outcome, reason = told(error, directory)
        status |= {"status": "failed", "reason": reason}
    finally:
        with uninterrupted():
            if has_begun:
                results = sorted(results_in(directory) - foreign)
                own = [name for name in (STATUS, LOG) if (directory / name).is_file()]
                status |= {"ended": now(), "files": sorted([*own, *results])}
                if status["status"] != "interrupted":
                    status["hashes"] = hashes_of(directory, results)
                end_status(directory, status)
            else:
                log.warning("%s: as the run before left it", directory)
    return outcome


def told(error: Exception, directory: Path) -> tuple[str, str]:
    """Say what ended the run: `refused` for what the user or the machine's owner can mend, `failed` for a defect."""
    cause = str(error) if isinstance(error, UserError) else user_cause(error)
    if cause is not None:
        log.error("%s", cause)
        return "refused", cause
    reason = f"{type(error).__name__}: {first_line(error)}"
    log.error("failed: %s\n%s", error, traceback.format_exc())
    log.error("this is a bug: %s; the traceback is in %s", reason, directory / LOG)
    return "failed", reason


def folder_of(directory: Path) -> str | None:
    """The current folder as seen from the run's directory, for relative paths; None where it is not one above."""
    here = Path.cwd()
    return os.path.relpath(here, directory.resolve()) if directory.resolve().is_relative_to(here) else None


def hashes_of(directory: Path, results: Sequence[str]) -> dict[str, str]:
    """SHA-256 by file, of all but the tracker's, which may go on writing."""
    return {name: file_hash(directory / name) for name in results if not name.startswith(f"{TRACKED}/")}


def objective_of(directory: Path, objective: str | None) -> float | None:
    """The metric that a sweep is after, as a finished run's `metrics.json` has it; None where there is none."""
    if objective is None:
        return None
    try:
        value = json.loads((directory / METRICS).read_text(encoding="utf-8")).get(objective)
    except FileNotFoundError:
        return None
    return None if value is None else float(value)
