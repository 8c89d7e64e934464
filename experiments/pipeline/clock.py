"""The time as files have it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Coordinated universal time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
