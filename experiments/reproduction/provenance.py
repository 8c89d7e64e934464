"""When, with what and on which machine runs were made, as they recorded it themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.run_files import read_status

UNKNOWN = "not recorded"
COMMIT = 10
"""Digits of a commit that are shown."""


@dataclass(frozen=True)
class Provenance:
    """Of an experiment's runs, in words.

    Attributes:
        minutes: from each run's start to its end, added up.
        dates: the first and the last, of their ends.
        made_with: processors, threads, torch and commits.
    """

    minutes: str
    dates: str
    made_with: str


def provenance_of(runs: Sequence[FinishedRun]) -> Provenance:
    """By their `status.json`; runs of an older version have recorded no environment."""
    all_status = [read_status(run.directory) for run in runs]
    spans = [(parsed(status.get("started")), parsed(status.get("ended"))) for status in all_status]
    ends = sorted(end for _, end in spans if end is not None)
    seconds = [(end - start).total_seconds() for start, end in spans if start is not None and end is not None]
    dates = list(dict.fromkeys(end.date().isoformat() for end in ends))
    made_with = dict.fromkeys(words(status.get("environment")) for status in all_status)
    return Provenance(
        f"{sum(seconds) / 60:.1f}" if seconds else UNKNOWN,
        " to ".join([dates[0], dates[-1]][: len(dates)]) if dates else UNKNOWN,
        "; ".join(made_with) or UNKNOWN,
    )


def parsed(time: object) -> datetime | None:
    """A time as `status.json` has it."""
    try:
        return datetime.fromisoformat(time) if isinstance(time, str) else None
    except ValueError:
        return None


def words(environment: object) -> str:
    """`AMD EPYC, 2 threads, torch 2.14.1, commit 1234567890`."""
    if not isinstance(environment, Mapping):
        return UNKNOWN
    known: Mapping[str, Any] = environment
    commit, versions = str(known.get("git_commit") or ""), known.get("versions")
    parts = [
        str(known.get("device") or ""),
        f"{n} thread{'' if n == 1 else 's'}" if isinstance(n := known.get("threads"), int) else "",
        f"torch {versions['torch']}" if isinstance(versions, Mapping) and "torch" in versions else "",
        f"commit {commit[:COMMIT]}{'+changes' if commit.endswith('+changes') else ''}" if commit else "",
    ]
    return ", ".join(part for part in parts if part) or UNKNOWN
