"""A run in several processes (`torchrun`, `srun`): the first speaks and writes, the others compute with it.

`torchrun --nproc-per-node=N -m experiments.run ...`, or `srun --ntasks=N ...`, starts the command N times. All must do
the same at the same time; what the others would write lies in a folder of their own, which goes with them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

from experiments.slurm_step import take_tasks_of_step
from models.errors import UserError

SECONDS_TO_SPEAK = 5.0

ITS_OWN = ("hydra.run.dir", "tracking.mode", "hydra/job_logging", "hydra/hydra_logging")
"""Keys that the others have another value of."""


def number_of_processes() -> int:
    """How many `torchrun` has started together; raises UserError where its variables say nothing sensible."""
    try:
        count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    except ValueError as error:
        raise UserError(f"WORLD_SIZE, RANK: {error}; expected the numbers that torchrun sets") from error
    if not 0 <= rank < count:
        raise UserError(f"RANK={rank}, WORLD_SIZE={count}: expected the numbers that torchrun sets")
    return count


def begin_as_one_of_several() -> None:
    """Before Hydra composes anything. Raises UserError for what several processes cannot do together."""
    take_tasks_of_step()
    if (n_processes := number_of_processes()) == 1:
        return
    arguments, is_first = sys.argv[1:], int(os.environ["RANK"]) == 0
    if not is_first:
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    for option in ("-m", "--multirun", "--resume", "--rerun"):
        if any(argument.partition("=")[0] == option for argument in arguments):
            raise UserError(f"{option} in {n_processes} processes; expected a single run")
    if is_first:
        return
    folder = tempfile.mkdtemp(prefix="lib-run-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    alike = [argument for argument in arguments if argument.partition("=")[0] not in ITS_OWN]
    sys.argv[1:] = [
        *alike,
        f"hydra.run.dir={folder}",
        "tracking.mode=disabled",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]


def first_speaks_first(main: Callable[[], None]) -> None:
    """The launcher ends all processes once one of them has failed: those that are silent leave the first time to speak.

    Raises what `main` does.
    """
    try:
        main()
    except SystemExit as leaving:
        if leaving.code and os.environ.get("RANK", "0") != "0":
            time.sleep(SECONDS_TO_SPEAK)
        raise
