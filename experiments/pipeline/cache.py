"""Finished stages by content: what another run has computed from the same inputs is found again, never half of it.

A stage's key is a hash of everything it depends on: its part of the configuration, the keys of the stages before it,
the source of the code it runs and the versions of the libraries. A result is one folder, renamed into place when it is
whole.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.pipeline.resources import Resources, measured

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves behind: tensors by name, and JSON."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FinishedStage:
    """A stage's result, its key, what computing it took, and whether another run had done so."""

    result: StageResult
    key: str
    resources: Resources
    reused: bool


@dataclass(frozen=True)
class StageCache:
    """Results below `directory/<stage>/<key>/`."""

    directory: Path
    device: torch.device

    def finish(self, stage: str, key: str, compute: Callable[[], StageResult]) -> FinishedStage:
        """The stage's result: read if it is there and whole, else computed and kept.

        A second process that wants the same result waits for the first.
        """
        folder = self.directory / stage / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if (found := self._read(folder)) is not None:
                log.info("%s: reused (%s/%s)", stage, stage, key)
                return FinishedStage(found[0], key, found[1], reused=True)
            with measured(self.device) as resources:
                computed = compute()
            # As it will be read back: strides decide the last bit of sums over a tensor.
            result = StageResult(
                {name: tensor.contiguous() for name, tensor in computed.tensors.items()}, computed.values
            )
            self._write(folder, result, resources)
            log.info("%s: %.1f s", stage, resources.seconds)
            return FinishedStage(result, key, resources, reused=False)

    def _read(self, folder: Path) -> tuple[StageResult, Resources] | None:
        if not folder.is_dir():
            return None
        try:
            values = json.loads((folder / "values.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "tensors.safetensors")
            return StageResult(tensors, values["values"]), Resources(**values["resources"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("%s is damaged (%s) and is computed again", folder, error)
            shutil.rmtree(folder)
            return None

    def _write(self, folder: Path, result: StageResult, resources: Resources) -> None:
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in result.tensors.items()}
        save_file(tensors, temporary / "tensors.safetensors")
        values = {"values": result.values, "resources": vars(resources)}
        (temporary / "values.json").write_text(json.dumps(values), encoding="utf-8")
        os.replace(temporary, folder)


def stage_key(depends_on: dict[str, Any], code: Sequence[str]) -> str:
    """Hash of what a stage depends on; `code` names the packages and modules it runs."""
    content = {
        "depends_on": depends_on,
        "code": {name: source_hash(name) for name in code},
        "versions": {name: importlib.metadata.version(name) for name in ("torch",)},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


PROJECT = Path(__file__).resolve().parents[2]
"""Where the project's packages lie side by side, in a checkout as in an installation."""


@cache
def source_hash(name: str) -> str:
    """Hash of the source of one of the project's own modules, or of all modules of a package.

    Found by this file's place, never by the import system, for which a folder of the user's may bear the same name.
    Raises FileNotFoundError for a name that is neither.
    """
    place = PROJECT.joinpath(*name.split("."))
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(place.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
