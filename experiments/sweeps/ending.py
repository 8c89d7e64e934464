"""The end of a command: what came of its jobs, the sweep's report and best job, and the exit status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.command_end import FAILED, OK, USER_ERROR
from experiments.sweeps.record import FINISHED, Job, SweepRecord

EXIT_STATUS = {FINISHED: OK, "refused": USER_ERROR}
"""By a job's status; any other is `FAILED`."""


def exit_status(jobs: Sequence[Job]) -> int:
    """The worst of the jobs'; a user's error counts before a failure."""
    return max((EXIT_STATUS.get(job.status, FAILED) for job in jobs), default=OK)


def is_another_s(directory: Path, record: SweepRecord) -> bool:
    """Whether a run of another sweep, or a single one, left its results there: a job that failed early touches none."""
    from experiments.config.run_directory import read_status, sweep_of

    status = read_status(directory)
    return status is not None and status["status"] == FINISHED and sweep_of(directory) != Path(record.folder).resolve()


def end_sweep(record: SweepRecord) -> int:
    """Report on a sweep whose jobs have all ended, in whatever process they ran. The exit status."""
    from experiments.report import write_and_print
    from experiments.sweeps.objective import best_of
    from experiments.sweeps.parallel_jobs import remove_slots

    jobs = record.ended()
    remove_slots(record.folder)
    for job in jobs:
        if job.reason is not None:
            print(f"{job.directory}: {job.reason}" if job.directory else job.reason)
    directories = [Path(job.directory) for job in jobs if job.directory and job.status != "refused"]
    directories = [directory for directory in directories if not is_another_s(directory, record)]
    if directories:
        write_and_print(list(dict.fromkeys(directories)), record.folder)
    objective, direction = (record.content().get(key) for key in ("objective", "direction"))
    if objective is not None and (best := best_of(jobs, direction or "minimize")) is not None:
        n_valued = sum(job.objective is not None for job in jobs)
        common = set.intersection(*(set(job.overrides) for job in jobs if job.overrides))
        chosen = " ".join(override for override in best.overrides if override not in common)
        print(f"best of {n_valued}: {objective} = {best.objective:g}{chosen and f' with {chosen}'}: {best.directory}")
    if (status := exit_status(jobs)) == FAILED:
        print(f"lib-run --resume {record.folder} finishes what has not")
    return status
