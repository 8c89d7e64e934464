"""How far a stage has come: a progress bar on a terminal, elsewhere a line in the log at least every half minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Event, Thread

log = logging.getLogger(__name__)

Advance = Callable[[float, float, str], None]
"""`(done, of how much, what to show beside it)`, in whatever unit."""
SECONDS_BETWEEN_LINES = 25.0
WAITS_AT_MOST = 1.0
"""Seconds after its end that a stage may still be watched."""


class StageProgress:
    """How far one stage has come."""

    def __init__(self, stage: str, left_is: str) -> None:
        self.stage, self.left_is = stage, left_is
        self.started = self.first_told = time.perf_counter()
        self.first: float | None = None
        self.done, self.total, self.text = 0.0, 0.0, ""

    def __call__(self, done: float | int, total: float | int, text: str = "") -> None:
        if self.first is None:
            self.first, self.first_told = done, time.perf_counter()
        self.done, self.total, self.text = done, total, text

    def seconds_left(self) -> float | None:
        """At the speed since the first word, as what was done before that may be of an earlier run; None until then."""
        if self.first is None or self.done <= self.first:
            return None
        return (time.perf_counter() - self.first_told) * (self.total - self.done) / (self.done - self.first)

    def left(self) -> str:
        """`about 40 s left`; empty where that is not known."""
        left = self.seconds_left()
        return "" if left is None else f"{self.left_is} {duration(left)} left"

    def line(self) -> str:
        """`basis: 34 %, about 40 s left  blocks.0.hook_resid_mid`; where no share is known, how long it has taken."""
        elapsed = duration(time.perf_counter() - self.started)
        known = [f"{min(1.0, self.done / self.total):.0%} after {elapsed}" if self.total else f"{elapsed} so far"]
        return (
            f"{self.stage}: {', '.join([*known, *filter(None, [self.left()])])}{f'  {self.text}' if self.text else ''}"
        )


@contextmanager
def progress_of(stage: str, left_is: str = "about") -> Generator[Advance, None, None]:
    """Show how far a stage has come for as long as the block lasts."""
    progress = StageProgress(stage, left_is)
    if sys.stderr.isatty():
        # What draws it takes an eighth of a second to import.
        from experiments.pipeline.progress_bar import bar

        with bar() as shown:
            task = shown.add_task(stage, total=None, text="", left="")

            def advance(done: float | int, total: float | int, text: str = "") -> None:
                progress(done, total, text)
                shown.update(task, completed=done, total=total, text=text, left=progress.left())

            yield advance
        return
    ended = Event()

    def watch() -> None:
        while not ended.wait(SECONDS_BETWEEN_LINES):
            log.info("%s", progress.line())

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield progress
    finally:
        ended.set()
        watcher.join(WAITS_AT_MOST)


def duration(seconds: float | int) -> str:
    """`0.4 s`, `48 s`, `12 min`, `3.5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class PassesOverData:
    """The share of a stage that passes over the data once for each of several node layers (`Chain.on_chunk`)."""

    def __init__(self, advance: Advance, n_layers: int) -> None:
        self.advance, self.n_layers = advance, n_layers
        self.share_of: dict[str, float] = {}

    def __call__(self, layer: str, done: int, total: int) -> None:
        self.share_of[layer] = max(self.share_of.get(layer, 0.0), done / total)
        self.advance(sum(self.share_of.values()), self.n_layers, layer)
