"""`python -m experiments.run model=M method=K seed=S ...`: one run, or with `-m` a sweep that ends with a report.

Hydra composes and launches; `config/callbacks.py` checks every run before the first one starts. torch and everything
that needs it are imported only once a run is to be carried out, so that help and completion answer at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.config.callbacks import SWEEP
from experiments.config.explanations import CONFIG_DIRECTORY, explain_composition
from libcore.messages import first_line
from models.errors import UserError

log = logging.getLogger("experiments.run")  # under `python -m` this module is called __main__

OK, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
EXIT_STATUS = {"finished": OK, "failed": FAILED, "refused": USER_ERROR}


@hydra.main(config_path=str(CONFIG_DIRECTORY), config_name="config", version_base="1.3")
def run(composed: DictConfig) -> None:
    """One job: its directory says whether it is running, finished or failed, and why."""
    from experiments.config.composition import parse_config
    from experiments.config.run_directory import held, refuse_foreign, refuse_inputs_within
    from experiments.pipeline.recorded_run import carry_out

    job, sweep = HydraConfig.get(), os.environ.get(SWEEP)
    directory = Path(job.runtime.output_dir)
    entry: dict[str, object] = {"directory": str(directory), "status": "failed"}
    try:
        # Relative paths mean the folder that the user stands in, also where Hydra changes into the run's directory.
        with contextlib.chdir(job.runtime.cwd):
            config, option = parse_config(composed), "hydra.sweep.subdir: " if sweep else "hydra.run.dir="
            with held(directory, option):
                refuse_foreign(directory, option, job.output_subdir)
                refuse_inputs_within(config, directory)
                refuse_second_run(directory, sweep)
                entry["status"] = carry_out(config, directory, sweep)
    except UserError as error:  # before anything was written: the directory is somebody else's
        log.error("%s", error)
        entry |= {"status": "refused", "reason": str(error)}
    note_outcome(entry, sweep)


def refuse_second_run(directory: Path, sweep: str | None) -> None:
    """Raises UserError where another job of the same sweep has the same directory."""
    from experiments.config.run_directory import read_status

    if sweep is not None and (read_status(directory) or {}).get("sweep") == sweep:
        raise UserError(f"hydra.sweep.subdir: two runs of the sweep have the directory {directory}; expected one each")


outcomes: list[dict[str, object]] = []
"""Of the runs of this process: directory, status, and the reason where there is no `status.json` to hold it."""


def note_outcome(entry: dict[str, object], sweep: str | None) -> None:
    """Keep it for the exit status and the report, which are made by the process that the command began in."""
    from experiments.config.sweep_outcomes import append_outcome

    outcomes.append(entry)
    if sweep is not None:
        append_outcome(Path(sweep), entry)


def main() -> None:
    """Run, report; the exit status is 2 for an error of the user's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a ? in its place
    os.environ["MPLBACKEND"] = "agg"  # a notebook's is of no use here, and may not be installed
    os.environ.pop(SWEEP, None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's way to interrupt
    outcomes.clear()
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would print in many lines
    try:
        run()
        sys.exit(finish(os.environ.get(SWEEP)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted: finished stages are kept and found again", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OK)
    # Composition: Hydra, its plugins, its grammar and OmegaConf raise whatever they run into.
    except Exception as error:
        if wants_traceback:
            raise
        sweep = os.environ.get(SWEEP)
        if sweep is not None:  # the sweeper's or launcher's own: what has finished until then is reported on
            finish(sweep)
            print(f"error: {first_line(error)}", file=sys.stderr)
        else:
            overrides = [argument for argument in sys.argv[1:] if "=" in argument and not argument.startswith("-")]
            print(f"error: {explain_composition(error, overrides)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    finally:
        if not wants_traceback:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def finish(sweep: str | None) -> int:
    """The exit status; a sweep is reported on first."""
    entries = outcomes
    if sweep is not None:
        from experiments.config.sweep_outcomes import read_outcomes
        from experiments.report import write_and_print

        entries = read_outcomes(Path(sweep))
        for entry in entries:
            if "reason" in entry:
                print(f"{entry['directory']}: {entry['reason']}")
        directories = [Path(str(entry["directory"])) for entry in entries if "reason" not in entry]
        if directories:
            write_and_print(list(dict.fromkeys(directories)), Path(sweep))
    return max((EXIT_STATUS[str(entry["status"])] for entry in entries), default=OK)


if __name__ == "__main__":
    main()
