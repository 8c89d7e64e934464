"""How a command's process is set up before anything is imported that takes long."""

from __future__ import annotations

import gc

OBJECTS_BETWEEN_COLLECTIONS = 20_000


def collect_garbage_rarely() -> None:
    """Imports and figures make objects by the hundred thousand: Python's collector went over all of them again and
    again, for a seventh of what a run takes that finds its stages done. Numbers are in tensors, which it does not see.
    """
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
