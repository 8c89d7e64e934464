"""What is no file on a disk is refused and not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libcore.regular_files import refuse_irregular, regular_text, unreadable
from libcore.tensor_files import read_tensors


def irregular(folder: Path, kind: str) -> Path:
    """A path of that kind."""
    path = folder / kind
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            return Path("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "long":
            return folder / ("x" * 5000)
        case "null":
            return folder / "a\0b"
    return path


REASONS = {
    "pipe": "no regular file",
    "device": "no regular file",
    "folder": "is a directory",
    "missing": "no such file",
    "loop": "too many levels of symbolic links",
    "long": "file name too long",
    "null": "no path",
}


@pytest.mark.parametrize("kind", REASONS)
def test_the_reason_is_told_at_once(tmp_path: Path, kind: str) -> None:
    path = irregular(tmp_path, kind)
    assert unreadable(path) == REASONS[kind]
    for read in (refuse_irregular, regular_text, read_tensors):
        with pytest.raises(OSError, match=REASONS[kind]):
            read(path)


def test_a_text_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("12345")
    assert unreadable(path) is None
    assert regular_text(path, largest=5) == "12345"
    with pytest.raises(OSError, match="5 bytes; expected at most 4"):
        regular_text(path, largest=4)
