"""The sweep of one experiment: found again by how it was begun, begun or resumed by the ordinary command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.reporting.finished_runs import FinishedRun, read_run
from experiments.reporting.report_files import MARKDOWN
from experiments.reporting.settings import is_below
from experiments.reproduction.claims import Input
from experiments.reproduction.inputs import OPTIONS
from experiments.sweeps.record import SweepRecord
from models.errors import UserError

ERROR = "error: "
SECONDS_TO_END = 10
WITHOUT_EFFECT = ("-m", "--multirun", "device", "hydra", "hydra/launcher", "output_directory", "threads", "tracking")
"""Arguments that no number of a run depends on, with all keys below them."""


@dataclass(frozen=True)
class PaperRuns:
    """What there is of one experiment.

    Attributes:
        record: of its sweep; None where none was begun.
        runs: finished ones, all of the sweep's or none.
        reason: why there are none.
    """

    record: SweepRecord | None = None
    runs: list[FinishedRun] = field(default_factory=list)
    reason: str = ""

    @property
    def is_done(self) -> bool:
        """Whether all has finished, the sweep's report too, which the page takes figures of."""
        return bool(self.runs) and self.record is not None and (self.record.folder / MARKDOWN).is_file()


def arguments_of(experiment: str, overrides: Sequence[str], output_directory: str) -> list[str]:
    """What the ordinary command is given."""
    return [f"experiment={experiment}", *overrides, f"output_directory={output_directory}"]


def find_sweep(arguments: Sequence[str], unknown: Sequence[Input], output_directory: Path) -> SweepRecord | None:
    """The latest sweep that was begun with these arguments, and any value of what is not known now; None for none.

    Arguments that no number depends on may be others.
    """
    keys = {
        *WITHOUT_EFFECT,
        *(OPTIONS[option].key for option in unknown),
        *(["seed"] if "published" in unknown else []),
    }

    def of_interest(given: Sequence[str]) -> list[str]:
        return sorted(argument for argument in given if not is_below(argument.partition("=")[0], keys))

    for path in sorted(output_directory.glob("reports/*/sweep.json"), reverse=True):
        record = SweepRecord(path.parent.absolute())
        try:
            begun = record.content()["arguments"]
        except UserError:
            continue
        if of_interest(begun) == of_interest(arguments):
            return record
    return None


def read_sweep(record: SweepRecord | None) -> PaperRuns:
    """The sweep's runs if all of them have finished, else why not."""
    if record is None:
        return PaperRuns(reason="not begun")
    jobs, n_planned = record.jobs(), record.content()["jobs"] or 0
    finished: list[FinishedRun] = []
    first_reason = ""
    for job in jobs:
        run = read_run(Path(job.directory)) if record.finished(job.overrides) is not None else None
        if isinstance(run, FinishedRun):
            finished.append(run)
        elif not first_reason:
            first_reason = job.reason or ("" if job.status == "finished" else reason_of(Path(job.directory)))
    if len(finished) == max(n_planned, len(jobs)) > 0:
        return PaperRuns(record, finished)
    n_open = max(n_planned, len(jobs)) - len(finished)
    reason = f"{n_open} of {max(n_planned, len(jobs))} runs have not finished"
    return PaperRuns(record, reason=f"{reason}: {first_reason}" if first_reason else reason)


def reason_of(directory: Path) -> str:
    """Why a run has no results."""
    run = read_run(directory)
    return "" if isinstance(run, FinishedRun) else run.reason


def carry_out(arguments: Sequence[str], record: SweepRecord | None) -> tuple[int, str]:
    """Begin the sweep, or resume it; the exit status, and the command's own word on why it ended."""
    given = list(arguments) if record is None else ["--resume", str(record.folder)]
    process = subprocess.Popen([sys.executable, "-m", "experiments.run", *given], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    reason = ""
    try:
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith(ERROR):
                reason = line.removeprefix(ERROR).strip()
        return process.wait(), reason
    except KeyboardInterrupt:
        # Ctrl-C has reached it too; a signal to this process alone has not.
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise
