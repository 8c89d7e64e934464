"""How the runs of a sweep came out, told by each to the command that began it, in whatever process it ran."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

OUTCOMES = "runs.jsonl"


def append_outcome(folder: Path, entry: dict[str, Any]) -> None:
    """One line at the end of the sweep's list; several processes may append at once."""
    folder.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(entry) + "\n").encode()
    descriptor = os.open(folder / OUTCOMES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)  # one call: lines of several processes do not mix
    finally:
        os.close(descriptor)


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    """All lines; none for a sweep of which no run began."""
    try:
        text = (folder / OUTCOMES).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]
