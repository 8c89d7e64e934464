"""Files of tensors that are kept to be read again, believed only if they are what was written.

The header holds a checksum of everything else in the file: safetensors notices a file cut short, not a changed bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from libcore.tensor_files import read_tensors, tensors_hash, write_tensors
from models.whole_files import is_own_file, set_aside, written_whole

log = logging.getLogger(__name__)

CHECKSUM = "sha256"


@dataclass(frozen=True, eq=False)
class CheckedTensors:
    """What such a file holds.

    Attributes:
        header: texts by name, without the checksum.
        hash: of the tensors alone (`tensors_hash`, in the order of their names).
    """

    tensors: dict[str, Tensor]
    header: dict[str, str]
    hash: str


def write_checked(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """The file appears whole or not at all; returns the hash of the tensors.

    What lies there and is no file of a run's own (a folder, a link) is set aside. Raises OSError or SafetensorError.
    """
    content = hash_of(tensors)
    with written_whole(path) as temporary:
        write_tensors(temporary, tensors, {**header, CHECKSUM: checksum(path.name, content, header)})
        if not is_own_file(path):
            set_aside(path)
    return content


def read_checked(path: Path) -> CheckedTensors | None:
    """What was written; None where there is no such file, or after a warning where it is damaged or another's."""
    if not path.exists() and not path.is_symlink():
        return None
    found = read_or_reason(path)
    if isinstance(found, str):
        log.warning("%s: %s; it is made anew", path, found)
        return None
    return found


def read_or_reason(path: Path) -> CheckedTensors | str:
    """What was written, or why it is not believed."""
    if not is_own_file(path):
        return "no file, but a folder or a link"
    try:
        tensors, header = read_tensors(path)
    except (OSError, SafetensorError, ValueError):
        return "not readable as tensors"
    if (expected := header.pop(CHECKSUM, None)) is None:
        return "without a checksum, as older versions wrote it"
    content = hash_of(tensors)
    if checksum(path.name, content, header) != expected:
        return "not what was written"
    return CheckedTensors(tensors, header, content)


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Of all tensors, whatever order they are in."""
    return tensors_hash(sorted(tensors.items()))


def checksum(name: str, content: str, header: Mapping[str, str]) -> str:
    """Of everything in the file but the checksum, and of its name: another file renamed is another file."""
    return hashlib.sha256(json.dumps([name, content, dict(header)], sort_keys=True).encode()).hexdigest()
