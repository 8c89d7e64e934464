"""Files written whole: under a temporary name beside the place they belong, then renamed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path

from models.errors import UserError

foreign_files: ContextVar[frozenset[Path]] = ContextVar("foreign_files", default=frozenset())
"""Absolute paths of somebody else's files where this process writes: they are not replaced."""


TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")
"""What is not whole yet, as `temporary_path` names it."""


def temporary_path(path: Path) -> Path:
    """Where this process writes what is to be at `path` once it is whole, in the same folder."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def written_whole(path: Path) -> Generator[Path, None, None]:
    """A temporary path in the same folder; renamed to `path` if the block succeeds, removed if it fails.

    Raises UserError for one of `foreign_files`.
    """
    if path.absolute() in foreign_files.get():
        raise UserError(f"{path}: somebody else's file, which would be written over; expected another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.unlink(missing_ok=True)  # a link of that name would be written through
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_own_file(path: Path) -> bool:
    """Whether there is nothing at `path`, or a file itself: neither a folder, nor a link to somebody else's file."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return True


def is_own_folder(path: Path) -> bool:
    """Whether there is nothing at `path`, or a folder itself, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return True


def set_aside(path: Path) -> Path:
    """Rename what lies at `path` and is not a run's to remove, to a free name beside it, which is returned."""
    free = (path.with_name(f"{path.name}.set-aside{number or ''}") for number in count())
    aside = next(name for name in free if not name.exists() and not name.is_symlink())
    os.rename(path, aside)
    return aside
