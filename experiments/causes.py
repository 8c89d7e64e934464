"""What went wrong outside the program, in one line: full disks, limits, permissions, memory, damaged files.

A command ends with status 2 for these, as for a wrong key, and with 1 and a traceback for a defect of its own.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from experiments.reporting.run_files import shown_path
from libcore.messages import first_line, one_line
from libcore.numerical_errors import NumericalError
from libcore.processes import ProcessLost
from models.whole_files import TEMPORARY

DISK = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "larger than a file may be here (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk cannot be read or written",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a link that leads to itself",
    errno.EMFILE: "too many open files (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.ESTALE: "the network file system lost it",
    errno.ENODEV: "the device is gone",
    errno.ENXIO: "the device is gone",
}
"""By error number, what a user can mend and no program can."""

MEMORY = re.compile(r"can't allocate memory|cannot allocate memory|out of memory|bad_alloc", re.IGNORECASE)
TRIED = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


def user_cause(error: BaseException) -> str | None:
    """One line that says what and where; None for what is a defect, as far as anybody can tell."""
    for one in chained(error):
        if (line := of_disk(one) or of_memory(one) or of_numbers(one) or of_processes(one)) is not None:
            return line
    return None


def chained(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from or while handling."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def of_disk(error: BaseException) -> str | None:
    """Files and file systems."""
    if not isinstance(error, OSError) or error.errno not in DISK:
        return None
    place = "" if error.filename is None else f"{place_of(Path(os.fsdecode(error.filename)))}: "
    return f"{place}{DISK[error.errno]}; what was finished before is kept, and found again by the next run"


def place_of(path: Path) -> str:
    """A file by the name that it would have had, as users know it: `status.json` keeps the line."""
    half_written = TEMPORARY.fullmatch(path.name)
    try:
        return shown_path(path.with_name(half_written["name"]) if half_written else path)
    except OSError:  # the current folder is gone
        return path.name


def of_memory(error: BaseException) -> str | None:
    """Memory of the machine or of its accelerator."""
    text = str(error)
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not (
        isinstance(error, RuntimeError) and MEMORY.search(text)
    ):
        return None
    tried = TRIED.search(text)
    wanted = "" if tried is None else f" for {tried[1]}"
    device = "the accelerator's memory" if isinstance(error, torch.OutOfMemoryError) else "this machine's memory"
    return one_line(
        f"not enough of {device}{wanted}; expected fewer examples (analysis.n_examples), fewer node layers "
        "(analysis.node_layers), or a smaller analysis.memory_budget"
    )


def of_numbers(error: BaseException) -> str | None:
    """Numbers that no analysis can go on with."""
    if isinstance(error, NumericalError):
        return str(error)
    if isinstance(error, torch.linalg.LinAlgError):  # pyright: ignore[reportPrivateImportUsage]
        return f"a matrix that these weights and inputs give could not be factorised: {first_line(error)}"
    return None


def of_processes(error: BaseException) -> str | None:
    """Others that compute with this one."""
    return f"{error}; what was finished before is kept" if isinstance(error, ProcessLost) else None
