"""One entry of the cache: a stage's result in a folder, with a manifest by which it is believed, or is not.

The manifest has the stage, the key, and size and hash of each file, and a hash of itself: an entry that was cut short,
of which a bit has changed, or that is another's under this name, is none.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from libcore.tensor_files import read_tensors, write_tensors
from models.content_hashes import file_hash
from models.whole_files import is_own_file, is_own_folder, set_aside, temporary_path

FORMAT = 1
"""Of entries; one of another format is not read."""
TENSORS, VALUES, MANIFEST = "tensors.safetensors", "values.json", "manifest.json"
FILES = (TENSORS, VALUES)
"""What a manifest vouches for."""
ENTRY_FILES = (*FILES, MANIFEST)
HASH = "sha256"


class DistrustedEntryError(ValueError):
    """An entry that is not what was written, or of another format; its text says in what."""


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves behind: tensors by name, JSON, and what the header of the tensors' file says."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    header: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What an entry says of itself.

    Attributes:
        hashes: SHA-256 of each file by its name.
        sizes: bytes, likewise.
        notes: what else was written down, as JSON.
    """

    hashes: dict[str, str]
    sizes: dict[str, int]
    notes: dict[str, Any]

    @property
    def content(self) -> str:
        """Hash of the result: equal results have the same."""
        return hashlib.sha256("".join(self.hashes[name] for name in FILES).encode()).hexdigest()


def write_entry(folder: Path, result: StageResult, notes: dict[str, Any]) -> Manifest:
    """An entry `<stage>/<key>`, renamed into place when it is whole; there is none of that name before.

    Raises TypeError for values that JSON does not know, OSError for a folder that cannot be written.
    """
    temporary = temporary_path(folder)
    remove_files(temporary)
    try:
        temporary.mkdir()
        write_tensors(temporary / TENSORS, result.tensors, result.header)
        (temporary / VALUES).write_text(json.dumps(result.values), encoding="utf-8")
        hashes = {name: file_hash(temporary / name) for name in FILES}
        manifest = Manifest(hashes, {name: (temporary / name).stat().st_size for name in FILES}, notes)
        (temporary / MANIFEST).write_bytes(to_bytes(folder, manifest))
        os.replace(temporary, folder)
    finally:
        remove_files(temporary)
    return manifest


def read_entry(folder: Path) -> tuple[StageResult, Manifest] | None:
    """The entry `<stage>/<key>` if it is what was written; None where there is none. Raises DistrustedEntryError."""
    if (manifest := check_entry(folder)) is None:
        return None
    try:
        tensors, header = read_tensors(folder / TENSORS)
        values = json.loads((folder / VALUES).read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise DistrustedEntryError("not readable") from error
    return StageResult(tensors, values, header), manifest


def check_entry(folder: Path) -> Manifest | None:
    """The manifest, if every file is what it says; None where there is no entry. Raises DistrustedEntryError."""
    if not folder.exists() and not folder.is_symlink():
        return None
    if not is_own_folder(folder):
        raise DistrustedEntryError("no folder, but a file or a link")
    manifest = read_manifest(folder)
    for name in FILES:
        path = folder / name
        if not path.exists() or not is_own_file(path):
            raise DistrustedEntryError(f"without a file {name}")
        try:
            if path.stat().st_size != manifest.sizes[name] or file_hash(path) != manifest.hashes[name]:
                raise DistrustedEntryError(f"{name} is not what was written")
        except OSError as error:
            raise DistrustedEntryError(f"{name} cannot be read") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What the entry says of itself, its files unread; raises DistrustedEntryError."""
    path = folder / MANIFEST
    if not path.exists() and not path.is_symlink():
        raise DistrustedEntryError("without a manifest, as older versions wrote it")
    if not is_own_file(path):
        raise DistrustedEntryError(f"{MANIFEST} is no file")
    try:
        written = path.read_bytes()
        content = json.loads(written)
        if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > FORMAT:
            raise DistrustedEntryError(f"of format {content['format']}, which this version does not know")
        files = content["files"]
        hashes, sizes = ({name: files[name][kind] for name in FILES} for kind in (HASH, "bytes"))
        manifest = Manifest(hashes, sizes, content["notes"])
        if written != to_bytes(folder, manifest):
            of_another = (content["stage"], content["key"]) != (folder.parent.name, folder.name)
            raise DistrustedEntryError("another entry's" if of_another else f"{MANIFEST} is not what was written")
    except DistrustedEntryError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DistrustedEntryError(f"{MANIFEST} is not what was written") from error
    return manifest


def to_bytes(folder: Path, manifest: Manifest) -> bytes:
    """The manifest's file, with a hash of all else in it as its last word."""
    files = {name: {"bytes": manifest.sizes[name], HASH: manifest.hashes[name]} for name in FILES}
    content = {"format": FORMAT, "stage": folder.parent.name, "key": folder.name, "files": files}
    content["notes"] = manifest.notes
    own = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return (json.dumps(content | {HASH: own}, indent=1) + "\n").encode()


def remove_entry(folder: Path) -> Path | None:
    """Make room for the entry: its own files are removed; anything else is set aside, and its new name returned.

    What stands in the place of an entry may be a link or a file of the user's, or hold some.
    """
    if not folder.exists() and not folder.is_symlink():
        return None
    if is_own_folder(folder) and remove_files(folder):
        return None
    return set_aside(folder)


def remove_files(folder: Path) -> bool:
    """Remove a folder that holds an entry's own files and nothing else; otherwise nothing. Whether it is gone."""
    if not folder.is_dir() or folder.is_symlink():
        return not folder.exists()
    found = list(folder.iterdir())
    if not all(path.name in ENTRY_FILES and is_own_file(path) for path in found):
        return False
    for path in found:
        path.unlink(missing_ok=True)
    folder.rmdir()
    return True


def sweep_temporaries(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote this entry, or the state of its training.

    The caller holds the entry's lock.
    """
    for path in folder.parent.glob(f".{folder.name}.*.tmp"):
        if path.is_dir():
            remove_files(path)
        elif is_own_file(path):
            path.unlink()
