"""Several jobs at once on one machine: each takes its share of the cores, and no more of them run than have one."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, open_dict, read_write

from models.errors import UserError

THREADS = "OMP_NUM_THREADS"
"""Environment variable that torch takes its number of threads from when it is imported."""
SLOTS = "LIB_SWEEP_SLOTS"
"""Environment variable: how many jobs of the sweep may run at once; not set where the launcher sees to that itself."""
CORES_OF_SLURM = "SLURM_CPUS_PER_TASK"
SECONDS_BETWEEN_LOOKS = 0.5
A_WEEK = 7 * 24 * 60
"""Minutes."""


def share_out_cores(launcher: DictConfig, n_jobs: int | None, is_timeout_given: bool = False) -> None:
    """Tell jobs, by environment variables that they inherit, how many threads to use; a setting of the user's stays.

    Args:
        launcher: Hydra's configuration of the launcher.
        n_jobs: of the sweep, where that is known.
        is_timeout_given: whether the user has said when a job is to be ended.

    Raises UserError for a job of several tasks, which would all do the same in one folder.
    """
    target, cores = str(launcher.get("_target_", "")), os.cpu_count() or 1
    for key in ("tasks_per_node", "nodes"):
        if (launcher.get(key) or 1) != 1:
            raise UserError(
                f"hydra.launcher.{key}={launcher.get(key)}: a job of a sweep is one process; expected 1, "
                "or a single run in several (srun)"
            )
    if target.endswith("JoblibLauncher"):
        asked = int(launcher.get("n_jobs") or 1)
        # As joblib counts: -1 is all cores, -2 all but one.
        at_once = max(1, cores + 1 + asked) if asked < 0 else asked
        os.environ.setdefault(THREADS, str(max(1, cores // min(at_once, n_jobs or at_once))))
    elif target.endswith("LocalLauncher"):  # submitit's starts all jobs at once
        threads = launcher.get("cpus_per_task") or max(1, cores // (n_jobs or cores))
        os.environ.setdefault(THREADS, str(threads))
        os.environ[SLOTS] = str(max(1, cores // int(threads)))
        if not is_timeout_given:
            # Waiting for a slot counts; submitit's own hour would end a long training.
            with read_write(launcher), open_dict(launcher):
                launcher.timeout_min = A_WEEK


@contextmanager
def slot(folder: Path) -> Generator[None, None, None]:
    """Wait until fewer jobs of the sweep run than may at once; before torch is imported, which takes memory."""
    if CORES_OF_SLURM in os.environ:
        os.environ.setdefault(THREADS, os.environ[CORES_OF_SLURM])
    n_slots = int(os.environ.get(SLOTS, "0"))
    if not n_slots:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f".slot{number}.lock") for number in range(n_slots)]
    while True:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield
            finally:
                lock.release()
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def jobs_wait_for_slots() -> bool:
    """Whether jobs of the sweep that this process has begun may wait for others to end."""
    return SLOTS in os.environ


def slots_are_taken(folder: Path) -> bool:
    """Whether a job of the sweep runs, on this machine."""
    for path in folder.glob(".slot*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False


def remove_slots(folder: Path) -> None:
    """The locks' files, once no job runs any more."""
    for path in folder.glob(".slot*.lock"):
        path.unlink(missing_ok=True)
