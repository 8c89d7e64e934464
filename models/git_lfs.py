"""Files that Git LFS has not fetched: a few lines of text stand where the file itself belongs."""

from __future__ import annotations

from pathlib import Path

BEGINNING = b"version https://git-lfs.github.com/spec/"
LONGEST = 1024
"""Bytes of a pointer, by its specification."""


def refuse_lfs_pointer(path: Path, refusal: type[Exception]) -> None:
    """Raises the refusal for a regular file that is one, OSError where it cannot be read."""
    if is_lfs_pointer(path):
        raise refusal(f"{path}: a Git LFS pointer, not the file itself; expected what `git lfs pull` puts in its place")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a regular file is one; raises OSError where it cannot be read."""
    if not path.is_file() or path.stat().st_size > LONGEST:
        return False
    with path.open("rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING
