"""Activations of many node layers held from one pass through the model, in memory or on disk.

Those that are not held are computed again whenever they are asked for, from the last node layer before them that is. In
a model of many layers of one width that is most of the work, unless those that are held lie evenly among them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scratch:
    """Room on disk for activations that the memory budget does not hold.

    Attributes:
        directory: where a file is made, which is gone with the process, however that ends.
        most_bytes: of all activations that are held there at a time; never more than half of what is free.
    """

    directory: Path
    most_bytes: int

    def room(self) -> int:
        """Bytes."""
        try:
            return min(self.most_bytes, shutil.disk_usage(self.directory).free // 2)
        except OSError:  # no such directory, or none that may be read
            return 0


class OnDisk:
    """One node layer's activations in a part of a file; read as copies, by any thread."""

    def __init__(self, file: ScratchFile, offset: int, shape: Sequence[int], like: Tensor) -> None:
        self.file = file
        self.offset = offset
        self.shape = tuple(shape)
        self.dtype, self.device = like.dtype, like.device
        self.bytes_per_example = like.element_size() * prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, examples: slice) -> Tensor:
        start, stop, _ = examples.indices(len(self))
        activation = torch.empty(stop - start, *self.shape[1:], dtype=self.dtype)
        self.file.read(self.offset + start * self.bytes_per_example, bytes_of(activation))
        return activation.to(self.device)

    def __setitem__(self, examples: slice, activation: Tensor) -> None:
        start, _, _ = examples.indices(len(self))
        self.file.write(self.offset + start * self.bytes_per_example, bytes_of(activation.cpu().contiguous()))


Held = Tensor | OnDisk
"""One node layer's activations of all examples, read and written by slices of them."""


class ScratchFile:
    """A file without a name, of a size that is reserved at once; raises OSError where there is no room for it."""

    def __init__(self, directory: Path, n_bytes: int) -> None:
        self.descriptor, path = tempfile.mkstemp(dir=directory)
        weakref.finalize(self, os.close, self.descriptor)
        os.unlink(path)
        os.posix_fallocate(self.descriptor, 0, n_bytes)

    def read(self, offset: int, into: memoryview) -> None:
        """As many bytes as there is room for."""
        done = 0
        while done < len(into):
            done += os.preadv(self.descriptor, [into[done:]], offset + done)

    def write(self, offset: int, content: memoryview) -> None:
        """All of them."""
        done = 0
        while done < len(content):
            done += os.pwrite(self.descriptor, content[done:], offset + done)


def bytes_of(activation: Tensor) -> memoryview:
    """The memory of a tensor in a row, on the CPU."""
    return activation.flatten().view(torch.uint8).numpy().data


def room_for(
    n_examples: int, examples: Sequence[Tensor], memory: int, scratch: Scratch | None
) -> tuple[dict[int, Held], int]:
    """What the activations of node layers are to be held in, by number, and how many bytes that takes in memory.

    Args:
        n_examples: of each.
        examples: of every node layer, the activation of one.
        memory: bytes that may be held there.
        scratch: for those that do not fit, None for nothing.
    """
    bytes_of_layer = [n_examples * example.nbytes for example in examples]
    in_memory = chosen_to_hold(bytes_of_layer, memory, ())
    held: dict[int, Held] = {
        index: examples[index].new_empty(n_examples, *examples[index].shape[1:]) for index in in_memory
    }
    on_disk = chosen_to_hold(bytes_of_layer, 0 if scratch is None else scratch.room(), in_memory)
    if scratch is not None and on_disk:
        try:
            file = ScratchFile(scratch.directory, sum(bytes_of_layer[index] for index in on_disk))
        except OSError:  # full after all, or not to be written: what is not held is computed again
            return held, sum(bytes_of_layer[index] for index in in_memory)
        offset = 0
        for index in on_disk:
            held[index] = OnDisk(file, offset, (n_examples, *examples[index].shape[1:]), examples[index])
            offset += bytes_of_layer[index]
    return held, sum(bytes_of_layer[index] for index in in_memory)


def chosen_to_hold(bytes_of_layer: Sequence[int], room: int, held: Sequence[int]) -> list[int]:
    """Node layers to hold in this room beside those that are held already, by number.

    One after the other that for its size saves most sections, counted once for every layer that is computed again: for
    itself and those up to the next that is held, the sections from the last one before it. Of layers of one size that
    is the middle one, then the quarters.
    """
    chosen, n = list[int](), len(bytes_of_layer)
    while True:
        bounds = sorted({-1, n, *held, *chosen})
        best, most = None, 0.0
        for last, following in pairwise(bounds):
            for index in range(last + 1, following):
                saved = (index - last) * (following - index) / bytes_of_layer[index]
                if bytes_of_layer[index] <= room and saved > most:
                    best, most = index, saved
        if best is None:
            return chosen
        chosen.append(best)
        room -= bytes_of_layer[best]
