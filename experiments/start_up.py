"""How a command's process begins, before anything is imported that takes long, and how it ends."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable

from models.errors import UserError

OBJECTS_BETWEEN_COLLECTIONS = 20_000


def collect_garbage_rarely() -> None:
    """Imports and figures make objects by the hundred thousand, which Python's collector goes over again and again.

    That took a seventh of a run that finds its stages done, and the last time, when the process ends and its memory is
    given back anyway, 0.3 s after torch alone. Numbers are in tensors, which are freed without it.
    """
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
    atexit.register(gc.freeze)


def process_of(main: Callable[[], None]) -> None:
    """Run a command that is all its process is for; the process ends without taking the interpreter apart.

    After torch alone that takes a quarter of a second, and 130 MB, which would be a run's peak: the libraries' parts
    that only an ending needs are read in. Threads are waited for and exit functions called as ever. An error that
    nobody caught, and a message in the place of a status, are for the interpreter to deal with.
    """
    status: object = 0
    try:
        main()
    except SystemExit as leaving:
        status = 0 if leaving.code is None else leaving.code
        if not isinstance(status, int):
            raise
    assert isinstance(status, int)
    # As the standard library ends processes of its own: there is no public name.
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def refuse_deleted_folder() -> None:
    """Raises UserError where the folder that the command is called in is gone: relative paths mean nothing there."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the current folder is not there any more; expected the command in one that is") from error
