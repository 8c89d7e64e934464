"""How a command's process is set up before anything is imported that takes long."""

from __future__ import annotations

import atexit
import gc

OBJECTS_BETWEEN_COLLECTIONS = 20_000


def collect_garbage_rarely() -> None:
    """Imports and figures make objects by the hundred thousand, which Python's collector goes over again and again.

    That took a seventh of a run that finds its stages done, and the last time, when the process ends and its memory is
    given back anyway, 0.3 s after torch alone. Numbers are in tensors, which are freed without it.
    """
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
    atexit.register(gc.freeze)
