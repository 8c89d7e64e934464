"""One run in its directory: `status.json` says whether it is running, finished or failed, why, and what it left."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from experiments.config.model_checks import resolve_device
from experiments.config.run_directory import LOG, METRICS, STATUS, clear, results_in
from experiments.config.schema import RunConfig
from experiments.pipeline.environment import environment, own_commit
from experiments.pipeline.json_files import write_json
from experiments.pipeline.run_pipeline import run_pipeline
from libcore.messages import first_line
from libcore.numerical_errors import NumericalError
from models.errors import UserError

log = logging.getLogger(__name__)


def carry_out(
    config: RunConfig, directory: Path, sweep: tuple[str, int] | None = None, notes: str | None = None
) -> str:
    """The pipeline, and what `status.json` says of it. `finished`, `failed`, or `refused`: the user's error.

    `sweep` is the folder of its record and the number of the job in it; `notes` are the tracker's.
    """
    clear(directory)
    foreign = results_in(directory)
    status: dict[str, Any] = {"status": "running", "started": now()} | (
        {"sweep": sweep[0], "job": sweep[1]} if sweep else {}
    )
    write_json(directory / STATUS, status | {"foreign": sorted(foreign)})
    own_commit()  # as the code is before the run, which may take hours
    try:
        run_pipeline(config, directory, Path(sweep[0]).name if sweep else None, notes)
        status["environment"] = environment(resolve_device(config.device))
        log.info("finished: %s", directory)
        status["status"] = outcome = "finished"
    except (UserError, NumericalError) as error:
        log.error("%s", error)
        status |= {"status": "failed", "reason": str(error)}
        outcome = "refused"
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        reason = f"a matrix that these weights and inputs give could not be factorised: {first_line(error)}"
        log.error("%s", reason)
        status |= {"status": "failed", "reason": reason}
        outcome = "refused"
    except KeyboardInterrupt:
        status |= {"status": "interrupted", "reason": "interrupted"}
        raise
    except Exception as error:  # a defect: a sweep's other runs go on, and this one's log has the traceback
        log.error("failed: %s\n%s", error, traceback.format_exc())
        status |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        outcome = "failed"
    finally:
        own = [name for name in (STATUS, LOG) if (directory / name).is_file()]
        files = sorted([*own, *(results_in(directory) - foreign)])
        write_json(directory / STATUS, status | {"ended": now(), "files": files})
    return outcome


def objective_of(directory: Path, objective: str | None) -> float | None:
    """The metric that a sweep is after, as a finished run's `metrics.json` has it; None where there is none."""
    if objective is None:
        return None
    try:
        value = json.loads((directory / METRICS).read_text(encoding="utf-8")).get(objective)
    except FileNotFoundError:
        return None
    return None if value is None else float(value)


def now() -> str:
    """Coordinated universal time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
