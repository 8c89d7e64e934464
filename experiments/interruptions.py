"""Signals that end a process in order: Ctrl-C, and what clusters and terminals send before they kill."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
NAMES = {"SIGINT": "interrupted", "SIGTERM": "asked to end (SIGTERM)", "SIGHUP": "its terminal was closed (SIGHUP)"}


SECONDS_TO_LEAVE = 0.05
"""That a destructor has to end, before its signal comes again."""


heeded: set[int] = set()
"""Signals that this process ends at."""


class Interruption(KeyboardInterrupt):
    """A signal came; whatever cleans up after Ctrl-C cleans up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def end_in_order() -> None:
    """From now on each of `SIGNALS` raises `Interruption` in the main thread.

    One that the process was begun without, as `nohup` does with SIGHUP, stays without effect.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
            heeded.add(number)
    sys.unraisablehook = deliver_again


def interrupt(number: int, frame: FrameType | None) -> None:
    """The first signal ends the run; until that is done, others of the kind that machines send are ignored.

    Ctrl-C is a person, who may press it again.
    """
    if shields:
        shields[-1] = shields[-1] or number
        return
    for other in SIGNALS:
        if other is not signal.SIGINT and signal.getsignal(other) is interrupt:
            signal.signal(other, signal.SIG_IGN)
    raise Interruption(number)


def deliver_again(unraisable: sys.UnraisableHookArgs) -> None:
    """A signal that came while a destructor or a callback ran: Python drops what is raised there."""
    if not isinstance(unraisable.exc_value, Interruption):
        sys.__unraisablehook__(unraisable)
        return
    number = unraisable.exc_value.number
    for one in heeded:
        signal.signal(one, interrupt)
    later = threading.Timer(SECONDS_TO_LEAVE, _thread.interrupt_main, (number,))
    later.daemon = True
    later.start()


def exit_status_of(interruption: KeyboardInterrupt) -> int:
    """128 and the signal's number, as shells have it: 130, 143, 129."""
    return 128 + number_of(interruption)


def reason_of(interruption: KeyboardInterrupt) -> str:
    """What is written down."""
    return NAMES[signal.Signals(number_of(interruption)).name]


def number_of(interruption: KeyboardInterrupt) -> int:
    """Of the signal; libraries raise a plain KeyboardInterrupt on Ctrl-C."""
    return interruption.number if isinstance(interruption, Interruption) else signal.SIGINT


@contextmanager
def uninterrupted() -> Generator[None, None, None]:
    """What is short and must be whole; a signal that comes meanwhile is heeded behind it.

    A mask would not do: it is one thread's, and a signal comes to any thread, for the main one to handle.
    """
    shields.append(0)
    try:
        yield
    finally:
        came = shields.pop()
        if came:
            interrupt(came, None)


shields: list[int] = []
"""Of blocks that are not to be interrupted: the signal that came meanwhile, 0 where none did."""
