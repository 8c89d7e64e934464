"""One run in its directory: `status.json` says whether it is running, finished or failed, why, and what it left."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path

from experiments.config.run_directory import LOG, STATUS, clear, results_in
from experiments.config.schema import RunConfig
from experiments.pipeline.json_files import write_json
from experiments.pipeline.run_pipeline import run_pipeline
from models.errors import UserError

log = logging.getLogger(__name__)


def carry_out(config: RunConfig, directory: Path, sweep: str | None) -> str:
    """The pipeline, and what `status.json` says of it. `finished`, `failed`, or `refused`: the user's error."""
    clear(directory)
    foreign = results_in(directory)
    status = {"status": "running", "started": now()} | ({"sweep": sweep} if sweep else {})
    write_json(directory / STATUS, status | {"foreign": sorted(foreign)})
    try:
        run_pipeline(config, directory, Path(sweep).name if sweep else None)
        log.info("finished: %s", directory)
        status["status"] = outcome = "finished"
    except UserError as error:
        log.error("%s", error)
        status |= {"status": "failed", "reason": str(error)}
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


def now() -> str:
    """Coordinated universal time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
