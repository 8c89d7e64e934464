"""Finished stages by content: what another run has computed from the same inputs is found again, never half of it.

A stage's key is a hash of everything it depends on (`models.content_hashes.stage_key`): its part of the configuration,
the keys of the stages before it, the source of the code it runs and the versions of the libraries. A result is one
folder, renamed into place when it is whole.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

from experiments.pipeline.console import Advance, progress_of
from experiments.pipeline.resources import Resources, measured
from libcore.regular_files import regular_text
from libcore.tensor_files import read_tensors, write_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves behind: tensors by name, JSON, and what the header of the tensors' file says."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    header: dict[str, str] = field(default_factory=dict)


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

    def finish(
        self, stage: str, key: str, compute: Callable[[Advance], StageResult], left_is: str = "about"
    ) -> FinishedStage:
        """The stage's result: read if it is there and whole, else computed and kept.

        `compute` is given what it tells how far it has come; `left_is` says what an estimate of the time left is. A
        second process that wants the same result waits for the first.
        """
        folder = self.directory / stage / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.with_suffix(".lock"), stage):
            if (found := self._read(folder)) is not None:
                log.info("%s: reused (%s/%s)", stage, stage, key)
                return FinishedStage(found[0], key, found[1], reused=True)
            with measured(self.device) as resources, progress_of(stage, left_is) as advance:
                computed = compute(advance)
            # As it will be read back: strides decide the last bit of sums over a tensor.
            result = replace(computed, tensors={name: tensor.contiguous() for name, tensor in computed.tensors.items()})
            self._write(folder, result, resources)
            log.info("%s: %.1f s", stage, resources.seconds)
            return FinishedStage(result, key, resources, reused=False)

    def _read(self, folder: Path) -> tuple[StageResult, Resources] | None:
        if not folder.is_dir():
            return None
        try:
            values = json.loads(regular_text(folder / "values.json"))
            tensors, header = read_tensors(folder / "tensors.safetensors")
            return StageResult(tensors, values["values"], header), Resources(**values["resources"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("%s is damaged (%s) and is computed again", folder, error)
            shutil.rmtree(folder)
            return None

    def _write(self, folder: Path, result: StageResult, resources: Resources) -> None:
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_tensors(temporary / "tensors.safetensors", result.tensors, result.header)
        values = {"values": result.values, "resources": vars(resources)}
        (temporary / "values.json").write_text(json.dumps(values), encoding="utf-8")
        os.replace(temporary, folder)


@contextmanager
def alone(lock: Path, stage: str) -> Iterator[None]:
    """Hold a stage's lock; waiting for another process that computes the same is said."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        log.info("%s: another run is computing it; waiting", stage)
        with progress_of(f"{stage} (waiting for another run)"):
            held.acquire()
    try:
        yield
    finally:
        held.release()
