"""Drawing by two processes at once: matplotlib draws on one thread, whatever it draws."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from libcore.parallel import one_thread

Drawing = Callable[[], list[Path]]
"""Draws and writes files, and says which."""


def carry_out(drawings: Sequence[Drawing]) -> list[Path]:
    """All files that were written, in the drawings' order.

    Every other drawing is made by a process that is forked off for it, where that may be. What is raised there is
    raised here.
    """
    if len(drawings) < 2 or not may_fork():
        with one_thread():
            return [path for drawing in drawings for path in drawing()]
    forking = multiprocessing.get_context("fork")
    receiver, sender = forking.Pipe(duplex=False)
    other = forking.Process(target=draw_and_send, args=(drawings[1::2], sender), daemon=True)
    with warnings.catch_warnings():
        # Python warns of locks that another thread may hold. No other thread draws, and torch's are not asked for.
        warnings.simplefilter("ignore", DeprecationWarning)
        other.start()
    sender.close()
    try:
        with one_thread():
            own = [drawing() for drawing in drawings[::2]]
        others = received(receiver)
    finally:
        other.terminate()  # after an error or an interruption, nobody waits for what it draws
        other.join()
        receiver.close()
    return list(chain.from_iterable(chain.from_iterable(zip_longest(own, others, fillvalue=()))))


def may_fork() -> bool:
    """Whether a second process has a thread to run on, and the copy of this one is one that works.

    Other systems' own libraries, and a GPU's driver, do not work in a copy; nor may a daemonic process have one.
    """
    return (
        sys.platform == "linux"
        and torch.get_num_threads() > 1
        and not torch.cuda.is_initialized()
        and not multiprocessing.current_process().daemon
    )


def draw_and_send(drawings: Sequence[Drawing], sender: Connection) -> None:
    """In the other process: the files by drawing, or what was raised."""
    torch.set_num_threads(1)  # the threads of the process that this one is a copy of are not here
    try:
        answer: list[list[Path]] | BaseException = [drawing() for drawing in drawings]
    except BaseException as error:
        error.add_note(traceback.format_exc())
        answer = error
    with contextlib.suppress(BrokenPipeError):  # after an error or an interruption there
        sender.send(answer)


def received(receiver: Connection) -> list[list[Path]]:
    """The other process's files; raises what was raised there."""
    try:
        answer = receiver.recv()
    except EOFError as error:
        raise RuntimeError("the process that draws half of the figures has ended before it was done") from error
    if isinstance(answer, BaseException):
        raise answer
    return answer
