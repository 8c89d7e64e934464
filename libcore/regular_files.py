"""Files of which only what lies on a disk is read: a pipe or a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_TEXT = 2**28
"""Bytes of a text that is read as a whole; the largest that a run writes is a page of some 50 MB."""


def unreadable(path: Path | str) -> str | None:
    """Why a path is no file that can be read, in a few words; None where it is one."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return reason_of(error)
    except ValueError:  # a null character
        return "no path"
    if stat.S_ISDIR(mode):
        return "is a directory"
    return None if stat.S_ISREG(mode) else "no regular file"


def reason_of(error: OSError) -> str:
    """What the system says, in lower case."""
    if error.errno == errno.ENOENT:
        return "no such file"
    return (error.strerror or type(error).__name__).lower()


def refuse_irregular(path: Path | str, largest: int | None = None) -> None:
    """Raises OSError for what is no regular file, and for one of more bytes than `largest`."""
    if (reason := unreadable(path)) is not None:
        if reason == "no such file":
            raise FileNotFoundError(errno.ENOENT, reason, str(path))
        raise OSError(errno.EINVAL, reason, str(path))
    if largest is not None and (size := os.stat(path).st_size) > largest:
        raise OSError(errno.EFBIG, f"{size} bytes; expected at most {largest}", str(path))


def regular_text(path: Path, encoding: str = "utf-8", errors: str = "strict", largest: int = LARGEST_TEXT) -> str:
    """The text of a regular file; raises OSError for anything else, UnicodeDecodeError for another encoding."""
    refuse_irregular(path, largest)
    return path.read_text(encoding=encoding, errors=errors)
