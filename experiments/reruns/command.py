"""`python -m experiments.run --rerun DIR`: a run again from its own directory, and what comes out otherwise."""

from __future__ import annotations

import argparse
import contextlib
import logging
import logging.config
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.config.folder import CONFIG_DIRECTORY
from models.errors import UserError

SAME, DIFFERENT = 0, 1
EXIT_STATUS = {"refused": 2, "failed": 1}
"""Where the run itself did not finish."""


def rerun(arguments: Sequence[str]) -> int:
    """Carry the run out again in a new directory, and compare. The exit status; raises UserError."""
    parsed = command_line().parse_args(arguments)
    # Reads runs, and so imports torch; --help does without.
    import torch

    from experiments.config.model_checks import check_runs
    from experiments.config.run_directory import LOG, check_writable, held, refuse_foreign, refuse_inputs_within
    from experiments.pipeline.recorded_run import carry_out
    from experiments.reruns.comparison import compare_runs

    earlier = parsed.rerun.absolute()
    status = finished_status(earlier)
    begun_in = Path(os.path.normpath(earlier / status["from"])) if status.get("from") else Path.cwd()
    out = None if parsed.out is None else parsed.out.absolute()
    with contextlib.chdir(begun_in):
        config = config_of_run(earlier)
        if out is None:
            stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}"
            out = begun_in / config.output_directory / "reruns" / stamp
        config = config.model_copy(
            update={"tracking": config.tracking.model_copy(update={"mode": "disabled"})}
            | ({} if parsed.use_cache else {"output_directory": shown(out)})
        )
        check_writable(out, "--out")
        refuse_foreign(out, "--out ")
        refuse_inputs_within(config, out)
        check_runs([config])
        out.mkdir(parents=True, exist_ok=True)
        if config.threads is None and (threads := status.get("environment", {}).get("threads")):
            torch.set_num_threads(threads)
        with held(out, "--out "):
            log_to(out / LOG)
            outcome = carry_out(config, out, None, None)
    if outcome in EXIT_STATUS:
        return EXIT_STATUS[outcome]
    lines, is_same = compare_runs(earlier, out)
    print("\n".join(lines))
    return SAME if is_same else DIFFERENT


def finished_status(directory: Path) -> dict[str, Any]:
    """What `status.json` says of a finished run; raises UserError for anything else."""
    from experiments.config.run_directory import read_status

    status = read_status(directory)
    if status is None or status.get("status") != "finished" or not isinstance(status.get("hashes"), dict):
        found = "none" if status is None else "without hashes" if status.get("status") == "finished" else "unfinished"
        raise UserError(f"--rerun {directory}: expected the directory of a finished run with hashes, found {found}")
    return status


def config_of_run(directory: Path) -> Any:
    """The run's configuration, as it resolved it; raises UserError."""
    from omegaconf import OmegaConf

    from experiments.config.composition import validated
    from experiments.reporting.run_files import DamagedRunError, read_config

    try:
        return validated(OmegaConf.to_container(OmegaConf.create(read_config(directory))))
    except DamagedRunError as error:
        raise UserError(f"--rerun {directory}: {error}") from error


def shown(path: Path) -> str:
    """Relative to the current folder, where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def log_to(file: Path) -> None:
    """The log of a run, as Hydra would set it up."""
    from omegaconf import OmegaConf

    written = OmegaConf.load(CONFIG_DIRECTORY / "hydra" / "job_logging" / "run.yaml")
    settings: Any = OmegaConf.to_container(written, resolve=False)
    settings["handlers"]["file"]["filename"] = str(file)
    logging.config.dictConfig(settings)


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m experiments.run", description=__doc__)
    parser.add_argument("--rerun", metavar="DIR", type=Path, required=True, help="directory of a finished run")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="of the new run (default: reruns/<time> in its output directory)"
    )
    parser.add_argument(
        "--use-cache",
        action="store_true",
        help="take stages that have finished from the earlier run's cache; without it all is computed, into a new one",
    )
    return parser
