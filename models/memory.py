"""What a configuration needs of memory, known from its sizes before anything is allocated, and what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SINGLE, DOUBLE = 4, 8
"""Bytes of a number."""
CONTROL_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux keeps the limit of a container or a cluster's job."""
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Need:
    """One thing that has to be in memory as a whole.

    Attributes:
        what: in words.
        n_bytes: at least.
        keys: of the model's configuration, that it grows with.
    """

    what: str
    n_bytes: int
    keys: tuple[str, ...]


def grams(widths: Sequence[int]) -> int:
    """Bytes of the Grams of node layers of these widths, the constant coordinate not counted, and of their bases."""
    return sum(3 * DOUBLE * (width + 1) ** 2 for width in widths)


@cache
def machine_memory() -> int | None:
    """Bytes that this process may take at most: of the machine, its control group or its limit; None if not known."""
    return min(limits(), default=None)


def limits() -> Iterator[int]:
    """Everything that bounds it."""
    with suppress(AttributeError, ValueError, OSError):  # not a Unix
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in CONTROL_GROUPS:
        try:
            limit = Path(path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if limit.isdigit():
            yield int(limit)
    with suppress(ImportError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            yield soft


def in_words(n_bytes: int) -> str:
    """`1.5 GB`."""
    power = min(max(0, n_bytes.bit_length() - 1) // 10, len(UNITS) - 1)
    return f"{n_bytes / 1024**power:.3g} {UNITS[power]}"
