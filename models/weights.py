"""Models in files: tensors with a header, read and checked where they come from outside."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from libcore.tensor_files import read_tensors, tensors_hash, write_tensors
from models.whole_files import written_whole

UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
)
"""What torch and safetensors raise on files that are not what they claim to be."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the model."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a model's file holds: tensors by name, and texts by name in its header."""

    tensors: dict[str, Tensor]
    header: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """A `.safetensors` file, or a PyTorch state dict (read without unpickling code), which has no header.

        Raises CheckpointError for a missing, damaged or unsafe file, or one that holds anything but named tensors.
        """
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; expected a state dict (.pt) or a .safetensors file")
        try:
            if path.suffix == ".safetensors":
                return cls(*read_tensors(path))
            with warnings.catch_warnings(action="ignore"):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise CheckpointError(
                f"{path}: not readable as named tensors; expected a state dict without code in it"
            ) from error
        if not isinstance(loaded, dict):
            raise CheckpointError(f"{path}: holds {type(loaded).__name__}; expected named tensors")
        for name, value in loaded.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise CheckpointError(f"{path}: {name!r} is {type(value).__name__}; expected named tensors")
        return cls(loaded)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names, dtypes, shapes and values of the tensors, in the order of their names, and of the texts.

        Whatever the file is that they were read from. Where there are no texts, it is of the tensors alone.
        """
        content = tensors_hash(sorted(self.tensors.items()))
        if not self.header:
            return content
        return hashlib.sha256(json.dumps([content, self.header], sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """As `.safetensors`; the file appears whole or not at all."""
        with written_whole(path) as temporary:
            write_tensors(temporary, self.tensors, self.header)


def check_shapes(
    weights: dict[str, Tensor], expected: dict[str, tuple[int, ...]], ignored_suffixes: tuple[str, ...], source: Path
) -> dict[str, Tensor]:
    """The expected weights, in float32 or as they are; buffers with an ignored suffix are left out.

    Raises CheckpointError with the first mismatch: a missing name, another shape, or a name that does not belong.
    """
    found = {name: tensor for name, tensor in weights.items() if not name.endswith(ignored_suffixes)}
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(
                f"{source}: weight {name} is missing; expected shape {shape}, found {sorted(found)[:3]} …"
            )
        if tuple(found[name].shape) != shape:
            raise CheckpointError(
                f"{source}: weight {name} has another shape; expected {shape}, found {tuple(found[name].shape)}"
            )
        if found[name].is_floating_point() and not found[name].isfinite().all():
            raise CheckpointError(f"{source}: weight {name} holds numbers that are not finite")
    for name in found:
        if name not in expected:
            raise CheckpointError(
                f"{source}: weight {name} does not belong to this model; expected {list(expected)[:3]} …"
            )
    return {name: found[name] for name in expected}
