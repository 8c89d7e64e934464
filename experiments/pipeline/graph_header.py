"""What `graph.safetensors` says of itself: nothing in it depends on where a run's files lie on a machine."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from experiments.config.schema import RunConfig
from models.room import Room


def graph_header(config: RunConfig, room: Room[Any], weights: str) -> dict[str, str]:
    """Texts by key (FILES.md); `weights` is the hash of the model's."""
    versions = {name: importlib.metadata.version(name) for name in ("local-interaction-basis", "torch")}
    return {
        "method": config.method.name,
        "label": config.method.title,
        "config": json.dumps(portable(config), sort_keys=True),
        "model": json.dumps(without_folders(room.depends_on), sort_keys=True),
        "weights": weights,
        "versions": json.dumps(versions),
    }


def portable(config: RunConfig) -> dict[str, Any]:
    """The configuration without where things lie and how they were tracked; of files elsewhere the names alone."""
    content = config.model_dump(exclude={"output_directory", "tracking"})
    return without_folders(content | {"data": content["data"] | {"root": None}})


def without_folders(content: Any) -> Any:
    """The same JSON; of a path that begins at a root, at somebody's home or outside, the last part is left."""
    if isinstance(content, dict):
        return {key: without_folders(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_folders(value) for value in content]
    return name_of(content) if isinstance(content, str) and leads_outside(content) else content


def leads_outside(text: str) -> bool:
    """Whether a text is a path that tells of folders beyond the one that a run was begun in."""
    path, windows = PurePosixPath(text), PureWindowsPath(text)
    return path.is_absolute() or bool(windows.drive) or text.startswith("~") or ".." in (*path.parts, *windows.parts)


def name_of(path: str) -> str:
    """The last part."""
    return PureWindowsPath(path).name or PurePosixPath(path).name
