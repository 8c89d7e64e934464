"""What is known of a sweep on disk: how it was begun, and of each job whether it has begun and how it came out.

Jobs write it, in whatever process or on whatever machine they run; the command that began the sweep reads it back.
Imported before it is known whether anything is to be carried out: what needs torch waits until it is needed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.pipeline.json_files import write_json
from experiments.sweeps.parallel_jobs import jobs_wait_for_slots, slots_are_taken
from libcore.messages import first_line
from libcore.regular_files import regular_text
from models.errors import UserError

SWEEP = "LIB_SWEEP_DIRECTORY"
"""Environment variable that tells the jobs of a sweep where its record is, and its report is going to be."""
RECORD, JOBS = "sweep.json", "runs.jsonl"
STARTED, FINISHED = "started", "finished"
SECONDS_BETWEEN_LOOKS, LOOKS_FOR_WAITING = 0.5, 40
SECONDS_FOR_A_FILE = 3600.0
"""Nothing is half-written for so long, on whatever machine."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep, or a single run.

    Attributes:
        number: in the sweep.
        overrides: what it was called with, which tells it apart from the others.
        directory: of its run.
        status: `started`; `finished`, `failed` or `refused` (by the user's error); `killed`, `lost`.
        reason: where no `status.json` holds it.
        objective: value of the metric that the sweep is after.
    """

    number: int
    overrides: tuple[str, ...]
    directory: str
    status: str
    reason: str | None = None
    objective: float | None = None


@dataclass(frozen=True)
class SweepRecord:
    """A sweep's folder."""

    folder: Path

    def begin(self, arguments: Sequence[str], n_jobs: int | None, objective: str | None, direction: str | None) -> None:
        """Note the command's arguments, how many jobs there will be where that is known, and what is sought."""
        content = {"arguments": list(arguments), "jobs": n_jobs, "objective": objective, "direction": direction}
        write_json(self.folder / RECORD, content | {"from": os.getcwd()})

    def sweep_beside(self) -> None:
        """Remove what sweeps beside this one have left half-written, because they were killed."""
        from experiments.config.run_directory import remove_temporaries

        for path in self.folder.parent.glob(f"*/{RECORD}"):
            remove_temporaries(path.parent, lambda _: True, older_than=SECONDS_FOR_A_FILE)

    def content(self) -> dict[str, Any]:
        """What was noted when the sweep began. Raises UserError where there is no sweep's record."""
        try:
            record = json.loads(regular_text(self.folder / RECORD))
            if isinstance(record, dict) and isinstance(record.get("arguments"), list):
                return record
        except (OSError, ValueError, RecursionError):
            pass
        raise UserError(f"--resume {self.folder}: holds no sweep; expected the folder of a sweep's report")

    def note(self, job: Job) -> None:
        """One line at the end of the list; several processes may write at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(asdict(job)) + "\n").encode()
        descriptor = os.open(self.folder / JOBS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line)  # one call: lines of several processes do not mix
        finally:
            os.close(descriptor)

    def notes(self) -> list[Job]:
        """Every word on every job, in order. Raises UserError for a line that is none."""
        try:
            lines = regular_text(self.folder / JOBS).splitlines()
        except FileNotFoundError:
            return []
        found: list[Job] = []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                found.append(Job(**(entry | {"overrides": tuple(entry["overrides"])})))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise UserError(
                    f"{self.folder / JOBS}: line {number} is damaged ({first_line(error)}); expected what a sweep wrote"
                ) from error
        return found

    def jobs(self) -> list[Job]:
        """The last word on every job that has begun, by number."""
        return [job for _, job in sorted({job.number: job for job in self.notes()}.items())]

    def drawn_before(self) -> list[Job]:
        """Finished jobs of a search that drew other values under their numbers when it was resumed."""
        jobs = self.jobs()
        calls, directories = {job.overrides for job in jobs}, {job.directory for job in jobs}
        others = (job for job in self.notes() if job.overrides not in calls and job.directory not in directories)
        return [job for job in {job.overrides: job for job in others}.values() if job.status == FINISHED]

    def goes_on(self) -> bool:
        """Whether a job of the sweep runs, on this machine."""
        from experiments.config.run_directory import is_held

        running = any(job.status == STARTED and is_held(Path(job.directory)) for job in self.jobs())
        return running or slots_are_taken(self.folder)

    def finished(self, overrides: Sequence[str]) -> Job | None:
        """The job with these overrides, if it has finished and its run's directory still says so."""
        from experiments.config.run_directory import read_status, sweep_of

        for job in (*self.jobs(), *self.drawn_before()):
            if job.status != FINISHED or job.overrides != tuple(overrides):
                continue
            status = read_status(Path(job.directory)) or {}
            # A later sweep may have the directory now.
            is_own = sweep_of(Path(job.directory)) in (None, self.folder.resolve())
            if status.get("status") == FINISHED and is_own:
                return job
        return None

    def ended(self) -> list[Job]:
        """Every job once none of them goes on any more: those that ended without a word, or never began, are named."""
        n_planned, quiet_looks = self.content()["jobs"] or 0, 0
        while True:
            quiet_looks = 0 if self.goes_on() else quiet_looks + 1
            jobs = {job.number: job for job in self.jobs()}
            # A job lets its directory go a moment before it says how it came out.
            is_said = quiet_looks > any(job.status == STARTED for job in jobs.values())
            # A job that waits for its turn takes it soon after another has ended.
            if is_said and (len(jobs) >= n_planned or quiet_looks > LOOKS_FOR_WAITING * jobs_wait_for_slots()):
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
        for number, job in jobs.items():
            if job.status == STARTED:
                jobs[number] = Job(number, job.overrides, job.directory, "killed", "its process ended without a word")
        for number in range(n_planned):
            if number not in jobs:
                jobs[number] = Job(number, (), "", "lost", f"job {number} was never begun")
        return [*(job for _, job in sorted(jobs.items())), *self.drawn_before()]


def forget_skipped(directory: Path) -> None:
    """Remove what Hydra has made for a job that had been carried out before: a directory, and a log in it."""
    from experiments.config.run_directory import LOG

    try:
        if {path.name for path in directory.iterdir()} <= {LOG}:
            (directory / LOG).unlink(missing_ok=True)
            directory.rmdir()
    except OSError:  # a directory that is in use, or holds something else
        pass


def resumed(folder: Path) -> SweepRecord:
    """The sweep in `folder`, or the latest of which reports lie below it; raises UserError where there is none."""
    if (folder / RECORD).is_file():
        return SweepRecord(folder.absolute())
    found = sorted(path.parent for path in folder.glob(f"reports/*/{RECORD}"))
    if not found:
        raise UserError(
            f"--resume {folder}: holds no sweep; expected the folder of a sweep's report, or the one it lies in"
        )
    return SweepRecord(found[-1].absolute())
