"""What lies in a cache: finished stages, kept files, interrupted trainings, what is somebody else's; what uses it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.config.run_directory import STATUS, read_status
from experiments.pipeline.cache_entry import ENTRY_FILES, MANIFEST, DistrustedEntryError, check_entry, read_manifest
from models.checked_tensors import read_or_reason
from models.whole_files import is_own_file, is_own_folder

Kind = Literal["stage", "file", "training", "temporary", "foreign"]
KEY = "[0-9a-f]{20}"
STAGE = re.compile(rf"(?!images/)\w+/{KEY}")
FILE = re.compile(rf"pretrained/{KEY}\.safetensors|images/{KEY}/cifar10-[0-9a-f]{{64}}\.safetensors")
TRAINING = re.compile(rf"model/({KEY})\.training\.safetensors")
TEMPORARY = re.compile(rf"(?:\w+|images/{KEY})/\.[\w.-]+\.\d+\.tmp")
LOCK = re.compile(rf"\w+/{KEY}\.lock")
GROUP = re.compile(rf"\w+|images/{KEY}")
DAY = 24 * 3600.0


@dataclass(frozen=True)
class Kept:
    """One thing in the cache.

    Attributes:
        name: path below the cache.
        kind: `stage` for a finished one, `file` for decoded images and converted weights, `training` for one that was
            interrupted, `temporary` for what a process left that was killed, `foreign` for anything else.
        days: since it was written.
    """

    path: Path
    name: str
    kind: Kind
    n_bytes: int
    days: float

    @property
    def lock(self) -> Path | None:
        """What a process holds that computes it; None for what has no lock."""
        if self.kind == "stage":
            return self.path.with_suffix(".lock")
        if self.kind == "training":
            return self.path.with_name(self.path.name.removesuffix(".training.safetensors") + ".lock")
        key = self.path.name.split(".")[1] if self.kind == "temporary" else ""
        return self.path.with_name(f"{key}.lock") if re.fullmatch(KEY, key) else None

    def damage(self) -> str | None:
        """Why it is not believed; None where it is what was written, or nothing that is read."""
        if self.kind == "stage":
            try:
                check_entry(self.path)
            except DistrustedEntryError as error:
                return str(error)
        elif self.kind in ("file", "training") and isinstance(reason := read_or_reason(self.path), str):
            return reason
        return None

    @property
    def format(self) -> str:
        """A word on what is not of this version's format; empty otherwise. Contents are not looked at."""
        if self.kind != "stage":
            return ""
        try:
            read_manifest(self.path)
        except DistrustedEntryError as error:
            return str(error)
        return ""


def contents(cache: Path) -> list[Kept]:
    """Everything in it, by name; no link is followed."""
    return sorted(found_in(cache, cache), key=lambda kept: kept.name)


def found_in(folder: Path, cache: Path) -> Iterator[Kept]:
    """In one folder of the cache and those below it that are the cache's."""
    for path in folder.iterdir():
        name = path.relative_to(cache).as_posix()
        is_folder, is_file = path.is_dir() and is_own_folder(path), path.is_file() and is_own_file(path)
        if is_folder and STAGE.fullmatch(name):
            yield kept(path, name, "stage")
        elif is_folder and GROUP.fullmatch(name):
            yield from found_in(path, cache)
        elif TEMPORARY.fullmatch(name) and (is_file or is_folder):
            yield kept(path, name, "temporary")
        elif is_file and FILE.fullmatch(name):
            yield kept(path, name, "file")
        elif is_file and TRAINING.fullmatch(name):
            yield kept(path, name, "training")
        elif not (is_file and LOCK.fullmatch(name)):
            yield kept(path, name, "foreign")


def kept(path: Path, name: str, kind: Kind) -> Kept:
    """With its size and its age."""
    files = [path] if not is_own_folder(path) else [path / file for file in ENTRY_FILES if (path / file).is_file()]
    dated = path / MANIFEST if (path / MANIFEST).is_file() else path
    age = (time.time() - dated.lstat().st_mtime) / DAY
    return Kept(path, name, kind, sum(file.lstat().st_size for file in files), max(age, 0.0))


def uses(folders: Iterable[Path], cache: Path) -> dict[str, list[Path]]:
    """Finished runs in and below the folders by what of the cache they used."""
    found: dict[str, list[Path]] = {}
    directories = {path.parent for folder in folders for path in folder.rglob(STATUS)}
    for directory in sorted(path for path in directories if not path.is_relative_to(cache)):
        status = read_status(directory) or {}
        names = status.get("cache")
        if status.get("status") == "finished" and isinstance(names, list):
            for name in names:
                found.setdefault(str(name), []).append(directory)
    return found
