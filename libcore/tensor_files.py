"""Safetensors files: named tensors, and texts in a header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from libcore.regular_files import refuse_irregular


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors, and the header; raises SafetensorError or OSError for a file that cannot be read."""
    refuse_irregular(path)
    with safe_open(path, "pt") as file:
        header = dict(file.metadata() or {})
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - safe_open is no mapping


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Tensors wherever they are and however they lie in memory; a header without texts is none."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata=dict(header) or None)
