"""The directory of a run is its own: nothing of anybody else's is overwritten in it, nothing but a run's is cleared.

A run writes down in `status.json` which files it left. Only those are removed when the directory is used again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from experiments.config.schema import RunConfig
from models.errors import UserError

STATUS = "status.json"
LOG = "run.log"
"""Opened by Hydra before the run begins."""


def refuse_foreign(directory: Path, option: str) -> None:
    """Raises UserError for a directory that holds files and is not a run's."""
    if not directory.is_dir() or is_a_run(directory):
        return
    found = sorted(path.name for path in directory.iterdir() if path.name != LOG or path.stat().st_size)
    if found:
        raise UserError(
            f"{option}{directory}: holds {found[0]} and is no run's directory; expected an empty or a new one"
        )


def is_a_run(directory: Path) -> bool:
    """Whether a run has written its status there."""
    return read_status(directory) is not None


def read_status(directory: Path) -> dict[str, Any] | None:
    """What `status.json` says; None where there is none of a run's."""
    try:
        status = json.loads((directory / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) and "status" in status else None


def refuse_inputs_within(config: RunConfig, directory: Path) -> None:
    """Raises UserError for an input of the run that lies in its own directory, which is cleared before it is read."""
    inputs = {"model.checkpoint": config.model.checkpoint, "data.path": config.data.path}
    inputs |= {f"method.{name}": str(path) for name, path in config.method.files.items() if name != "function"}
    for key, value in inputs.items():
        if value is not None and Path(value).resolve().is_relative_to(directory.resolve()):
            raise UserError(
                f"{key}={value}: lies in the run's own directory, which is cleared; expected another hydra.run.dir"
            )


def clear(directory: Path) -> None:
    """Remove what an earlier run left there, whose results would be taken for this one's; nothing else."""
    listed = (read_status(directory) or {}).get("files", [])
    for name in listed if isinstance(listed, list) else ():
        path = directory / str(name)
        if path.name != LOG and path.resolve().is_relative_to(directory.resolve()) and not path.is_dir():
            path.unlink(missing_ok=True)
    for folder in sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def files_in(directory: Path) -> set[str]:
    """Every file below, as relative paths."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def check_writable(directory: Path, option: str) -> None:
    """Raise UserError where the directory of `option` can be neither written nor made; leaves nothing behind."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(20, "not a directory")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(
            f"{option}{'' if option.endswith('=') else ' '}{directory}: cannot be written: {existing}: {reason}; "
            "expected a directory that can"
        ) from error
