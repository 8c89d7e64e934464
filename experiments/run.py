"""`python -m experiments.run model=M method=K seed=S ...`: one run, or with `-m` a sweep that ends with a report.

torch and everything that needs it are imported only once a run is to be carried out, so that help and completion answer
at once.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.config.composition import (
    CONFIG_DIRECTORY,
    check_command_line,
    is_plain_help,
    parse_config,
    sweep_given_twice,
)
from experiments.config.schema import RunConfig
from experiments.pipeline.json_files import write_json
from models.errors import UserError

log = logging.getLogger("experiments.run")  # under `python -m` this module is called __main__

OK, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


class Outcome:
    """What the runs of this process came to: their directories, and the exit status."""

    directories: list[Path]
    status: int
    sweep_directory: Path | None
    sweep: str

    def __init__(self) -> None:
        self.directories, self.status, self.sweep_directory = [], OK, None
        self.sweep = f"{datetime.now():%Y%m%d-%H%M%S-%f}"


outcome = Outcome()


@hydra.main(config_path=str(CONFIG_DIRECTORY), config_name="config", version_base="1.3")
def run(composed: DictConfig) -> None:
    """One job: its directory says whether it is running, finished or failed, and why."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        outcome.sweep_directory = Path(job.sweep.dir).absolute()
    directory = Path(job.runtime.output_dir)
    outcome.directories.append(directory)
    sweep = outcome.sweep if outcome.sweep_directory is not None else None
    started = datetime.now(UTC).isoformat(timespec="seconds")
    status = {"status": "running", "started": started}
    write_json(directory / "status.json", status)
    try:
        from experiments.pipeline.run_pipeline import run_pipeline

        run_pipeline(parse_config(composed), directory, sweep)
        status["status"] = "finished"
        log.info("finished: %s", directory)
    except UserError as error:
        log.error("%s", error)
        status |= {"status": "failed", "reason": str(error)}
        outcome.status = USER_ERROR
    except KeyboardInterrupt:
        status |= {"status": "failed", "reason": "interrupted"}
        outcome.status = INTERRUPTED
        raise
    except Exception as error:  # a defect: the sweep's other runs go on, and this one's log has the traceback
        log.error("failed: %s\n%s", error, traceback.format_exc())
        status |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        outcome.status = FAILED
    finally:
        status["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(directory / "status.json", status)


def check_before_start(arguments: list[str]) -> list[RunConfig]:
    """Every run's configuration, checked before any of them starts."""
    parsed = get_args_parser().parse_intermixed_args(arguments)
    configs = check_command_line(parsed.overrides, parsed.multirun)
    if parsed.cfg is None:
        from experiments.config.model_checks import check_runs

        check_runs(configs)
        # An option given on the command line replaces the experiment's own sweep over it, and may be a sweep itself.
        given_twice = sweep_given_twice(parsed.overrides)
        options = [argument for argument in arguments if argument not in parsed.overrides]
        if given_twice and not parsed.multirun:
            options.append("--multirun")
        replaced = [f"~hydra.sweeper.params.{key}" for key in given_twice]
        sys.argv[1:] = [*options, *parsed.overrides, *replaced]
    return configs


def main() -> None:
    """Check, run, report; the exit status is 2 for an error of the user's."""
    arguments = sys.argv[1:]
    try:
        if not is_plain_help(arguments):
            check_before_start(arguments)
        run()
        if outcome.sweep_directory is not None:
            from experiments.report import write_and_print

            write_and_print(outcome.directories, outcome.sweep_directory / "reports" / outcome.sweep)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted: finished stages are kept and found again", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(outcome.status)


if __name__ == "__main__":
    main()
