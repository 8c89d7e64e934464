"""Safetensors files: named tensors, and texts in a header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from libcore.regular_files import refuse_irregular

BYTES_OF_LENGTH = 8
"""At a file's beginning: how long its header is, in little endian."""
METADATA = "__metadata__"


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors, and the header; raises SafetensorError or OSError for a file that cannot be read."""
    refuse_irregular(path)
    with safe_open(path, "pt") as file:
        header = dict(file.metadata() or {})
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - safe_open is no mapping


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Tensors wherever they are and however they lie in memory; a header without texts is none.

    Equal tensors and texts give equal files. Raises OSError, with the path, for one that cannot be written. The library
    would write to a name of its own beside it first, which a killed process leaves behind; here it has the bytes made
    alone, at the cost of a second copy in memory.
    """
    content = memoryview(save(apart(tensors), metadata=dict(header) or None))
    data = BYTES_OF_LENGTH + int.from_bytes(content[:BYTES_OF_LENGTH], "little")
    try:
        with Path(path).open("wb") as file:
            file.write(content[:BYTES_OF_LENGTH])
            texts = bytes(content[BYTES_OF_LENGTH:data])
            file.write(sorted_texts(texts) if len(header) > 1 else texts)
            file.write(content[data:])
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In the processor's memory, each its own: two names for one tensor, or a part of one, are two in a file."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        alone = tensor.detach().cpu().resolve_neg().contiguous()
        if alone.untyped_storage().data_ptr() in seen:
            alone = alone.clone()
        seen.add(alone.untyped_storage().data_ptr())
        found[name] = alone
    return found


def sorted_texts(header: bytes) -> bytes:
    """A file's header with its texts in the order of their names, as long as before: safetensors has them in any."""
    content = json.loads(header)
    ordered = {METADATA: dict(sorted(content.pop(METADATA).items()))} | content
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > len(header):
        raise ValueError(f"a header of {len(text)} bytes; expected at most {len(header)}")
    return text.ljust(len(header))


def tensors_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names, dtypes, shapes and contents."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
