"""Hashes of what results depend on: source code, files, and all that one result was computed from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
"""Where the project's packages lie side by side, in a checkout as in an installation."""


def stage_key(depends_on: dict[str, Any], code: Sequence[str]) -> str:
    """Hash of what a result depends on, as JSON; `code` names the project's packages and modules that compute it."""
    content = {
        "depends_on": depends_on,
        "code": {name: source_hash(name) for name in code},
        "versions": {name: importlib.metadata.version(name) for name in ("torch",)},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


@cache
def source_hash(name: str) -> str:
    """Hash of the source of one of the project's own modules, or of all modules of a package.

    Found by this file's place, never by the import system, for which a folder of the user's may bear the same name.
    Raises FileNotFoundError for a name that is neither.
    """
    place = PROJECT.joinpath(*name.split("."))
    return files_hash(sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")], place.parent)


def files_hash(files: Iterable[Path], root: Path) -> str:
    """Hash of files' names, as seen from `root`, and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
