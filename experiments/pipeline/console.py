"""One progress bar at a time, on a terminal only."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int, int, str], None]
"""`(steps done, steps in all, what to show behind the bar)`."""
AdvanceEstimate = Callable[[float, float, str], None]
"""`(seconds so far, seconds left or NaN, what to show behind the bar)`."""


@contextmanager
def progress_bar(description: str) -> Iterator[Advance]:
    """A bar over steps; quiet where standard error is no terminal."""
    with bar(MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(description, total=None, text="")
        yield lambda done, total, text: progress.update(task, completed=done, total=total, text=text)


@contextmanager
def estimated_bar(description: str) -> Iterator[AdvanceEstimate]:
    """A bar over time, of work whose steps differ in cost: how much is left is the caller's estimate."""
    with bar(TimeElapsedColumn(), TextColumn("{task.fields[left]}")) as progress:
        task = progress.add_task(description, total=None, text="", left="")

        def advance(elapsed: float, left: float, text: str) -> None:
            if math.isnan(left):
                progress.update(task, text=text)
            else:
                progress.update(
                    task, completed=elapsed, total=elapsed + left, text=text, left=f"at most {duration(left)} left"
                )

        yield advance


def bar(*columns: ProgressColumn) -> Progress:
    """Description, bar, the given columns and a text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def duration(seconds: float) -> str:
    """`0.4 s`, `48 s`, `12 min`, `3.5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
