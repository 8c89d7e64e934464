"""The numbers that a Hugging Face folder's files hold, before its library makes others of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from models.weights import CheckpointError, ModelFile, no_weight_dtype

FORMATS = ("*.safetensors", "pytorch_model*.bin")
FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""Torch's names by those of safetensors."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a folder's files, with torch's name of its dtype."""

    file: Path
    name: str
    dtype: str


def stored_weights(folder: Path) -> list[Stored]:
    """All tensors of the folder's files, whichever of them are read; raises CheckpointError for a damaged file."""
    files = (file for pattern in FORMATS for file in sorted(folder.glob(pattern)))
    return [Stored(file, name, dtype) for file in files for name, dtype in stored_dtypes(file)]


def refuse_other_numbers(weights: Iterable[Stored], parameters: Collection[str]) -> None:
    """Raises CheckpointError for a parameter stored as other than real floating-point numbers.

    The library takes integers, complex numbers and float8 for weights without a word; masks and positions, which are
    no parameters, are integers in many models.
    """
    for weight in weights:
        if (reason := no_weight_dtype(weight.dtype)) is not None and is_parameter(weight.name, parameters):
            raise CheckpointError(f"{weight.file}: weight {weight.name} {reason}")


def stored_dtypes(file: Path) -> Iterator[tuple[str, str]]:
    """Name and dtype of every tensor; raises CheckpointError for a file that cannot be read."""
    if file.suffix == ".bin":
        for name, tensor in ModelFile.read(file).tensors.items():
            yield name, str(tensor.dtype).removeprefix("torch.")
        return
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                dtype = str(opened.get_slice(name).get_dtype())
                yield name, FLOATS.get(dtype, dtype)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not readable as safetensors; expected the model's weights") from error


def is_parameter(name: str, parameters: Collection[str]) -> bool:
    """Whether a stored name is a parameter's, which may have the model's own prefix before it, or lack it."""
    return any(name == one or name.endswith(f".{one}") or one.endswith(f".{name}") for one in parameters)
