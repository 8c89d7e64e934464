"""The file of an interrupted training: tensors by name, and what was measured so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from libcore.tensor_files import read_tensors, write_tensors
from models.whole_files import written_whole

Entry = TypeVar("Entry")


def write_training_state(path: Path, tensors: dict[str, Tensor], history: Sequence[Any]) -> None:
    """Keep tensors and a history of dataclasses; the file appears whole or not at all."""
    with written_whole(path) as temporary:
        write_tensors(temporary, tensors, {"history": json.dumps([asdict(entry) for entry in history])})


def read_training_state(
    path: Path, entry: type[Entry], device: torch.device
) -> tuple[dict[str, Tensor], list[Entry]] | None:
    """Tensors and history, the latter as dataclasses of type `entry`; None where there is no readable state."""
    if not path.is_file():
        return None
    try:
        tensors, header = read_tensors(path)
        history = [entry(**values) for values in json.loads(header["history"])]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return {name: tensor.to(device) for name, tensor in tensors.items()}, history
