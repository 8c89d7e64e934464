"""The directory of a run is its own: nothing of anybody else's is overwritten in it, nothing but a run's is cleared.

A run writes down in `status.json` which files it left, and until it ends those that were there before. Only files of
the names that a run writes are ever removed when the directory is used again.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from experiments.config.schema import RunConfig
from libcore.regular_files import regular_text
from models.errors import UserError
from models.in_use import unused
from models.whole_files import TEMPORARY, is_own_file, is_own_folder

STATUS = "status.json"
METRICS = "metrics.json"
LOG = "run.log"
"""Opened by Hydra before the run begins."""
TRACKED = "wandb"
WRITTEN_THROUGH = (LOG, "figures", TRACKED)
"""Names below which files are written as they stand; others are replaced, be they links or not."""
SWEEP_CONFIGURATION = "multirun.yaml"
RESULTS = (
    "config.yaml",
    METRICS,
    "graph.safetensors",
    "ablations.json",
    "features.json",
    "timings.json",
    "model.safetensors",
    "figures/*",
    "wandb/*",
)
"""What a run writes, as docs/FILES.md lists it; whatever else appears meanwhile is somebody else's."""


def refuse_foreign(directory: Path, option: str, output_subdir: str | None = None) -> None:
    """Raises UserError for a directory that holds files and is not a run's, or out of which a link of it leads.

    `output_subdir` is where Hydra has written its own configuration before the run begins.
    """
    for name in WRITTEN_THROUGH:
        path = directory / name
        if not (is_own_file(path) if name == LOG else is_own_folder(path)):
            raise UserError(f"{option}{directory}: {name} in it leads elsewhere; expected a directory of the run's own")
    if not directory.is_dir() or is_a_run(directory):
        return
    found = sorted(
        path.name
        for path in directory.iterdir()
        if path.name != output_subdir and (path.name != LOG or path.stat().st_size) and not is_begun_status(path)
    )
    if found:
        raise UserError(
            f"{option}{directory}: holds {found[0]} and is no run's directory; expected an empty or a new one"
        )


def is_begun_status(path: Path) -> bool:
    """Whether a run was killed while it wrote its first status there."""
    found = TEMPORARY.fullmatch(path.name)
    return found is not None and found["name"] == STATUS and is_own_file(path)


def refuse_output_subdir(name: str | None) -> None:
    """Raises UserError where Hydra would write its configuration out of the run's directory, or among the results."""
    if name is not None and (Path(name).name != name or name in (".", "..", *WRITTEN_THROUGH)):
        raise UserError(f"hydra.output_subdir={name}: expected the name of a folder in the run's directory, or null")


def refuse_foreign_in_sweep(directories: Iterable[Path]) -> None:
    """Raises UserError for a job's directory that is foreign, before Hydra opens a log in it."""
    for directory in (Path(os.path.normpath(path)) for path in directories):
        if directory.is_dir() and {path.name for path in directory.iterdir()} != {LOG}:
            refuse_foreign(directory, "hydra.sweep.subdir: ")


def refuse_foreign_sweep(directory: Path) -> None:
    """Raises UserError for a directory whose `multirun.yaml`, which Hydra writes, is of no sweep of this command."""
    path = directory / SWEEP_CONFIGURATION
    if path.exists() and not {"hydra:", "output_directory:"} <= {
        line.split(" ")[0] for line in regular_text(path, errors="replace").splitlines()
    }:
        raise UserError(f"hydra.sweep.dir={directory}: holds {path.name} of something else; expected another directory")


def is_a_run(directory: Path) -> bool:
    """Whether a run has written its status there."""
    return read_status(directory) is not None


def read_status(directory: Path) -> dict[str, Any] | None:
    """What `status.json` says; None where there is none of a run's."""
    try:
        status = json.loads(regular_text(directory / STATUS))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) and "status" in status else None


def sweep_of(directory: Path) -> Path | None:
    """The folder of the sweep's record whose run left its results there; None for a single run's."""
    sweep = (read_status(directory) or {}).get("sweep")
    return None if sweep is None else (directory / str(sweep)).resolve()


def refuse_inputs_within(config: RunConfig, directory: Path) -> None:
    """Raises UserError for an input of the run that lies in its own directory, which is cleared before it is read."""
    inputs = {"model.checkpoint": config.model.checkpoint, "data.path": config.data.path}
    inputs |= {f"method.{name}": str(path) for name, path in config.method.files.items()}
    for key, value in inputs.items():
        if value is not None and Path(os.path.realpath(value)).is_relative_to(directory.resolve()):
            raise UserError(
                f"{key}={value}: lies in the run's own directory, which is cleared; expected another hydra.run.dir"
            )


def own_results(directory: Path) -> set[str]:
    """What an earlier run left there, as its `status.json` says; nothing where there was none."""
    status = read_status(directory)
    if status is None:
        return set()
    listed = status.get("files")
    if not isinstance(listed, list):  # killed, before it could say
        return results_in(directory) - set(status.get("foreign", ()))
    return {str(name) for name in listed if is_result(str(name))}


def remove(directory: Path, names: Iterable[str]) -> None:
    """Remove results of an earlier run, which would be taken for this one's, and folders that held nothing else."""
    folders: set[Path] = set()
    for name in names:
        path = directory / name
        if path.parent.resolve().is_relative_to(directory.resolve()) and is_own_file(path):
            path.unlink(missing_ok=True)
            folders |= {folder for folder in path.parents if folder.is_relative_to(directory) and folder != directory}
    for folder in sorted(folders, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def sweep_temporaries(directory: Path) -> None:
    """Remove what a process left that was killed while it wrote a result here; the caller holds the directory."""
    remove_temporaries(directory, lambda name: is_result(name) or name == STATUS)


def remove_temporaries(directory: Path, is_ours: Callable[[str], bool], older_than: float | None = None) -> None:
    """Remove half-written files below a directory, by the relative names they would have had.

    Nobody may be writing to it, unless files are `older_than` so many seconds.
    """
    for path in directory.rglob(".*.tmp"):
        found = TEMPORARY.fullmatch(path.name)
        if found is None or not is_own_file(path):
            continue
        if older_than is not None and time.time() - path.stat().st_mtime < older_than:
            continue
        if is_ours(path.with_name(found["name"]).relative_to(directory).as_posix()):
            path.unlink()


def is_result(name: str) -> bool:
    """Whether a run writes a file of that relative path."""
    return any(fnmatch(name, pattern) for pattern in RESULTS)


def results_in(directory: Path) -> set[str]:
    """Every file below with the name of a result, as relative paths."""
    files = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())
    return {name for name in files if is_result(name)}


def refuse_second_run(directory: Path, sweep: str, number: int) -> None:
    """Raises UserError where another job of the same sweep has the same directory."""
    if sweep_of(directory) == Path(sweep).resolve() and (read_status(directory) or {}).get("job") != number:
        raise UserError(f"hydra.sweep.subdir: two runs of the sweep have the directory {directory}; expected one each")


@contextmanager
def held(directory: Path, option: str) -> Generator[None, None, None]:
    """The directory is this run's alone; raises UserError while another process has it.

    The lock leaves no file, and goes with the process, however that ends.
    """
    with unused(directory) as is_free:
        if not is_free:
            raise UserError(f"{option}{directory}: another run is writing there; expected one of its own")
        yield


def is_held(directory: Path) -> bool:
    """Whether a run is writing there now."""
    try:
        with unused(directory) as is_free:
            return not is_free
    except OSError:  # there is no such directory
        return False


def check_writable(directory: Path, option: str) -> None:
    """Raise UserError where the directory of `option` can be neither written nor made; leaves nothing behind."""
    existing = directory.absolute()
    try:
        while not is_there(existing) and existing != existing.parent:
            existing = existing.parent
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


def is_there(path: Path) -> bool:
    """Whether there is anything of that name; raises OSError for a name that cannot be looked up."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
