"""The header of a GGUF file: what it says of the model in single values, and whether all of its tensors are there.

Read here, as the format's own library takes seconds for a vocabulary and does not notice lengths that are damaged.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY, BOOL = 8, 9, 7
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
"""How `struct` reads a number, by the format's number of its type."""
MOST_DIMENSIONS = 4
ALIGNMENT = 32
"""Bytes that the tensors' places are multiples of, where the header names no other."""


class GgufError(ValueError):
    """What is wrong with a file, to follow its name."""


@dataclass(frozen=True)
class GgufHeader:
    """What a file says of its model.

    Attributes:
        values: by key, such as `llama.context_length`; without arrays.
        types: the format's number of each tensor's type, by the tensor's name.
    """

    values: dict[str, Any]
    types: dict[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """Such as `llama`."""
        return str(self.values.get("general.architecture", "unnamed"))

    def of_architecture(self, key: str) -> Any:
        """A value whose key has the architecture before it; None where there is none."""
        return self.values.get(f"{self.architecture}.{key}")


def read_header(path: Path) -> GgufHeader:
    """The header of a regular file; raises GgufError, OSError."""
    if not path.stat().st_size:
        raise GgufError("empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return Reader(content).header()
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError) as error:
            raise GgufError("damaged or cut short, in its header") from error


@dataclass
class Reader:
    """A file from its beginning on, each value after the one before."""

    content: mmap.mmap
    position: int = 0

    def number(self, code: str) -> Any:
        """The next one; raises struct.error at the end of the file."""
        (value,) = struct.unpack_from(f"<{code}", self.content, self.position)
        self.position += struct.calcsize(f"<{code}")
        return value

    def skip(self, n_bytes: int) -> int:
        """Where what is skipped begins; raises IndexError beyond the end of the file."""
        begin = self.position
        if n_bytes > len(self.content) - begin:
            raise IndexError
        self.position += n_bytes
        return begin

    def string(self) -> str:
        begin = self.skip(self.number("Q"))
        return self.content[begin : self.position].decode("utf-8")

    def value(self, kind: int) -> Any:
        """The next one of that type; None for an array."""
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(code_of(kind))
        kind, length = self.number("I"), self.number("Q")
        if kind == STRING:
            for _ in range(length):
                self.skip(self.number("Q"))
        else:
            self.skip(length * struct.calcsize(f"<{code_of(kind)}"))
        return None

    def header(self) -> GgufHeader:
        """All of it, and whether the file reaches to the end of each tensor."""
        if self.content[: len(MAGIC)] != MAGIC:
            raise GgufError("no GGUF file")
        self.position = len(MAGIC)
        if (version := self.number("I")) not in VERSIONS:
            raise GgufError(f"version {version} of the format; expected {' or '.join(map(str, VERSIONS))}")
        n_tensors, n_values = self.number("Q"), self.number("Q")
        found = {self.string(): self.value(self.number("I")) for _ in range(n_values)}
        values = {key: value for key, value in found.items() if value is not None}
        tensors = [self.tensor() for _ in range(n_tensors)]
        alignment = values.get("general.alignment", ALIGNMENT)
        begin = -(-self.position // alignment) * alignment
        for name, kind, n_numbers, offset in tensors:
            if begin + offset + n_bytes_of(kind, n_numbers) > len(self.content):
                raise GgufError(f"cut short: tensor {name} is not all there")
        return GgufHeader(values, {name: kind for name, kind, _, _ in tensors})

    def tensor(self) -> tuple[str, int, int, int]:
        """Name, type, number of elements and offset among the tensors."""
        name, n_dimensions = self.string(), self.number("I")
        if n_dimensions > MOST_DIMENSIONS:
            raise IndexError
        n_numbers = 1
        for length in self.lengths(n_dimensions):
            n_numbers *= length
        return name, self.number("I"), n_numbers, self.number("Q")

    def lengths(self, n_dimensions: int) -> Iterator[int]:
        """Of a tensor, by dimension."""
        return (self.number("Q") for _ in range(n_dimensions))


def code_of(kind: int) -> str:
    """How `struct` reads a number of that type."""
    if kind not in NUMBERS:
        raise GgufError("damaged, in its header: values of a type that the format does not have")
    return NUMBERS[kind]


def n_bytes_of(kind: int, n_numbers: int) -> int:
    """Of a tensor of that type, which holds its numbers in blocks."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        in_block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise GgufError(f"tensors of type {kind}, which the installed gguf does not know") from error
    return n_numbers // in_block * n_bytes
