"""Safetensors files: named tensors, and texts in a header."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from libcore.regular_files import refuse_irregular

BYTES_OF_LENGTH = 8
"""At a file's beginning: how long its header is, in little endian."""
METADATA = "__metadata__"
NUMBER_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How safetensors tells what the operating system said."""


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors, and the header; raises SafetensorError or OSError for a file that cannot be read."""
    refuse_irregular(path)
    with safe_open(path, "pt") as file:
        header = dict(file.metadata() or {})
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - safe_open is no mapping


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Tensors wherever they are and however they lie in memory; a header without texts is none.

    Equal tensors and texts give equal files. Raises OSError, with the path, for one that cannot be written.
    """
    try:
        save_file(apart(tensors), path, metadata=dict(header) or None)
    except SafetensorError as error:
        if (told := NUMBER_IN_TEXT.search(str(error))) is None:
            raise
        number = int(told[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    if len(header) > 1:
        sort_texts(Path(path))


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In the processor's memory, each its own: two names for one tensor, or a part of one, are two in a file."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        alone = tensor.detach().cpu().contiguous()
        if alone.untyped_storage().data_ptr() in seen:
            alone = alone.clone()
        seen.add(alone.untyped_storage().data_ptr())
        found[name] = alone
    return found


def sort_texts(path: Path) -> None:
    """Have the header's texts in the order of their names: safetensors writes them in any."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(BYTES_OF_LENGTH), "little")
        header = json.loads(file.read(length))
        ordered = {METADATA: dict(sorted(header.pop(METADATA).items()))} | header
        text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path}: a header of {len(text)} bytes; expected at most {length}")
        file.seek(BYTES_OF_LENGTH)
        file.write(text.ljust(length))


def tensors_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names, dtypes, shapes and contents."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
