"""`status.json` at a run's begin and end, which is told even where the disk has no room for another file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.config.run_directory import STATUS
from experiments.pipeline.json_files import write_json, write_text

ROOM = 4096
"""Bytes that the file has from its begin: a block of the usual file systems, within which it can be written over."""


def begin_status(directory: Path, status: dict[str, Any]) -> None:
    """The file of a run that has begun, filled up with blanks."""
    write_text(directory / STATUS, f"{json.dumps(status, indent=1):<{ROOM - 1}}\n")


def end_status(directory: Path, status: dict[str, Any]) -> None:
    """The file of a run that has ended; over the first one, and shortened, where there is no room for a second."""
    try:
        write_json(directory / STATUS, status)
    except OSError:
        said = {key: status[key] for key in ("status", "started", "sweep", "job", "reason", "ended") if key in status}
        overwrite(directory / STATUS, json.dumps(said | {"reason": str(said.get("reason", ""))[: ROOM // 8]}))


def overwrite(path: Path, text: str) -> None:
    """Write over a file that is long enough, and fill it up with blanks; what cannot be written at all stays."""
    size = path.stat().st_size
    content = text.encode()
    if len(content) < size:
        with path.open("r+b") as file:
            file.write(content.ljust(size - 1) + b"\n")
