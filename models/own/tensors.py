"""The tensors that a model of the user's own is made of, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from libcore.sections.base import Movable


def named_tensors(value: Any) -> dict[str, Tensor]:
    """Every tensor within, by where it is: `sections.0.weight`."""
    return dict(walk(value, "", set()))


def walk(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Tensors in containers, dataclasses, sections, modules and in what functions were made with, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield name, value.detach()
        return
    for part, content in parts(value):
        yield from walk(content, f"{name}.{part}" if name else part, seen)


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, by name."""
    if isinstance(value, nn.Module):
        yield from value.named_parameters()
        yield from value.named_buffers()
    elif isinstance(value, Mapping):
        yield from ((str(key), content) for key, content in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(index), content) for index, content in enumerate(value))
    elif isinstance(value, Movable) or (is_dataclass(value) and not isinstance(value, type)):
        yield from vars(value).items()
    elif isinstance(value, partial):
        yield from (("function", value.func), ("arguments", value.args), ("keywords", value.keywords))
    elif isinstance(value, MethodType):
        yield "self", value.__self__
    elif isinstance(value, FunctionType):
        yield "defaults", value.__defaults__
        for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield variable, cell.cell_contents
            except ValueError:  # not assigned yet
                continue
