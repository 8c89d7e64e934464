"""Models in files: tensors with a header, read and checked where they come from outside."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from libcore.regular_files import unreadable
from libcore.tensor_files import apart, read_tensors, tensors_hash, write_tensors
from models.git_lfs import refuse_lfs_pointer
from models.whole_files import written_whole

UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    struct.error,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
)
"""What torch and safetensors raise on files that are not what they claim to be."""

EXACT_IN_FLOAT32 = (torch.float16, torch.bfloat16)
WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "float64")
"""Float8 is not among them: its numbers mean something only with scales that lie beside them."""


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
        if (reason := unreadable(path)) is not None:
            raise CheckpointError(f"{path}: {reason}; expected a state dict (.pt) or a .safetensors file")
        try:
            refuse_lfs_pointer(path, CheckpointError)
            if path.suffix == ".safetensors":
                return cls(*read_tensors(path))
            with warnings.catch_warnings(action="ignore"):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except CheckpointError:
            raise
        except UNREADABLE as error:
            raise CheckpointError(
                f"{path}: not readable as named tensors; expected a state dict without code in it"
            ) from error
        if not isinstance(loaded, dict):
            raise CheckpointError(f"{path}: holds {type(loaded).__name__}; expected named tensors")
        for name, value in loaded.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise CheckpointError(f"{path}: {name!r} is {type(value).__name__}; expected named tensors")
        return cls(independent(loaded, path))

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


def unusual_kind(tensor: Tensor) -> str | None:
    """What a tensor is in place of numbers one after another in memory; None for an ordinary one."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_meta:
        return "meta"
    if tensor.layout != torch.strided:
        return "sparse"
    return "quantized" if tensor.is_quantized else None


def independent(tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The same numbers, a copy where a tensor lies in the memory of another: a file takes each name's own.

    Raises CheckpointError for a tensor that is not simply numbers in memory.
    """
    for name, tensor in tensors.items():
        if (kind := unusual_kind(tensor)) is not None:
            raise CheckpointError(f"{source}: {name} is a {kind} tensor; expected one that holds all of its numbers")
    return apart(tensors)


def check_shapes(
    weights: dict[str, Tensor],
    expected: dict[str, tuple[int, ...]],
    ignored_suffixes: tuple[str, ...],
    source: Path,
    not_negative_suffixes: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The expected weights in float32 or float64; buffers with an ignored suffix are left out.

    Half precision becomes float32, which is exact.

    Raises CheckpointError with the first mismatch: a missing name, another shape, no finite real floating-point
    numbers, a number below zero where there are none, or a name that does not belong.
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
        if (reason := no_weight(found[name])) is not None:
            raise CheckpointError(f"{source}: weight {name} {reason}")
        if name.endswith(not_negative_suffixes) and bool((found[name] < 0).any()):
            raise CheckpointError(f"{source}: weight {name} holds numbers below zero; expected variances")
    for name in found:
        if name not in expected:
            raise CheckpointError(
                f"{source}: weight {name} does not belong to this model; expected {list(expected)[:3]} …"
            )
    return {name: found[name].float() if found[name].dtype in EXACT_IN_FLOAT32 else found[name] for name in expected}


def no_weight(tensor: Tensor) -> str | None:
    """Why a tensor cannot be a weight, to follow its name; None where it can."""
    if (kind := unusual_kind(tensor)) is not None:
        return f"is a {kind} tensor; expected one that holds all of its numbers"
    if (reason := no_weight_dtype(str(tensor.dtype).removeprefix("torch."))) is not None:
        return reason
    return None if bool(tensor.isfinite().all()) else "holds numbers that are not finite"


def no_weight_dtype(dtype: str) -> str | None:
    """Why numbers of that dtype, by torch's name, are no weights, to follow their name; None where they are."""
    return None if dtype in WEIGHT_DTYPES else f"has dtype {dtype}; expected {', '.join(WEIGHT_DTYPES)}"
