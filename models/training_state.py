"""The file of an interrupted training: tensors by name, and what was measured so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.whole_files import written_whole

Entry = TypeVar("Entry")


def write_training_state(path: Path, tensors: dict[str, Tensor], history: Sequence[Any]) -> None:
    """Keep tensors and a history of dataclasses; the file appears whole or not at all."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        save_file(contiguous, temporary, metadata={"history": json.dumps([asdict(entry) for entry in history])})


def read_training_state(
    path: Path, entry: type[Entry], device: torch.device
) -> tuple[dict[str, Tensor], list[Entry]] | None:
    """Tensors and history, the latter as dataclasses of type `entry`; None where there is no readable state."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            history = [entry(**values) for values in json.loads((file.metadata() or {})["history"])]
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return tensors, history
