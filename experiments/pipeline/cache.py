"""Finished stages by content: what another run has computed from the same inputs is found again, never half of it.

A stage's key is a hash of everything it depends on (`models.content_hashes.stage_key`): its part of the configuration,
the keys and the contents of the stages before it, the source of the code it runs and the versions of the libraries. A
result is one folder (`cache_entry.py`), renamed into place when it is whole and checked when it is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from experiments.pipeline.cache_entry import (
    DistrustedEntryError,
    StageResult,
    read_entry,
    remove_entry,
    sweep_temporaries,
    write_entry,
)
from experiments.pipeline.clock import now
from experiments.pipeline.console import Advance, progress_of
from experiments.pipeline.resources import Resources, measured
from libcore import processes
from libcore.streams import unwatched
from models.in_use import used
from models.whole_files import is_own_file, set_aside

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedStage:
    """A stage's result, its key, what computing it took, and whether another run had done so.

    Attributes:
        content: hash of the result itself, which a computation on another machine may not repeat to the last bit.
    """

    result: StageResult
    key: str
    resources: Resources
    reused: bool
    content: str

    @property
    def identity(self) -> str:
        """What later stages depend on: what was asked for, and what came of it."""
        return f"{self.key} {self.content}"


@dataclass(frozen=True)
class StageCache:
    """Results below `directory/<stage>/<key>/`.

    Attributes:
        in_use: what holds the results that were read or written, so that nothing removes them meanwhile.
    """

    directory: Path
    device: torch.device
    in_use: ExitStack = field(default_factory=ExitStack)

    def finish(
        self,
        stage: str,
        key: str,
        compute: Callable[[Advance], StageResult],
        left_is: str = "about",
        together: bool = True,
    ) -> FinishedStage:
        """The stage's result: read if it is there and what was written, else computed and kept.

        `compute` is given what it tells how far it has come; `left_is` says what an estimate of the time left is. A
        second process that wants the same result waits for the first. Of the processes of one run, all compute
        `together` what they share out among them, or the first alone; it looks and writes, and the others read.
        """
        folder = self.directory / stage / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        if processes.rank() > 0:
            return self._followed(folder, key, compute if together else None)
        with alone(folder.with_suffix(".lock"), stage):
            found = self._read(folder)
            processes.from_first(found is not None)
            if found is not None:
                log.info("%s: reused (%s/%s)", stage, stage, key)
                self.in_use.enter_context(used(folder))
                return FinishedStage(found[0], key, found[1], reused=True, content=found[2])
            sweep_temporaries(folder)
            with measured(self.device) as resources, progress_of(stage, left_is) as advance:
                computed = compute(advance)
            # As it will be read back: strides decide the last bit of sums over a tensor.
            result = replace(computed, tensors={name: tensor.contiguous() for name, tensor in computed.tensors.items()})
            remove_entry(folder)
            manifest = write_entry(folder, result, {"resources": vars(resources), "written": now()})
            self.in_use.enter_context(used(folder))
            processes.from_first("written")
            log.info("%s: %.1f s", stage, resources.seconds)
            return FinishedStage(result, key, resources, reused=False, content=manifest.content)

    def _followed(self, folder: Path, key: str, compute: Callable[[Advance], StageResult] | None) -> FinishedStage:
        """What the first process has found or written, after taking part in its computation."""
        if not (is_there := processes.from_first(False)):
            if compute is not None:
                compute(unwatched)
            processes.from_first("written")
        if (found := self._read(folder)) is None:
            raise processes.ProcessLost(f"{folder}: not what another process of the run has written there")
        return FinishedStage(found[0], key, found[1], reused=is_there, content=found[2])

    def _read(self, folder: Path) -> tuple[StageResult, Resources, str] | None:
        try:
            if (entry := read_entry(folder)) is None:
                return None
            result, manifest = entry
            return result, Resources(**manifest.notes["resources"]), manifest.content
        except DistrustedEntryError as error:
            log.warning("%s: %s; it is computed again", folder, error)
            return None


@contextmanager
def alone(lock: Path, stage: str) -> Generator[None, None, None]:
    """Hold a stage's lock; waiting for another process that computes the same is said.

    What has the lock's name and is no file is set aside.
    """
    if not is_own_file(lock):
        log.warning("%s: no file, but a folder or a link; now %s", lock, set_aside(lock).name)
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
