"""How values of configuration keys are written, ordered, and laid along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Value = Any
"""Of one dotted key: a text, a number, a truth value, None, or a list of such."""
ABSENT = "–"
"""Stands for a key that a run has not."""


def value_text(value: Value) -> str:
    """`1e-12`, `gradient`, `[50, 50]`, `null`: as it would be written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return " ".join(str(value).split())


def value_order(value: Value) -> tuple[int, float, str]:
    """Numbers by size, then texts by the alphabet; null and what is absent last."""
    if is_numeric(value):
        return 0, float(value), ""
    return (2, 0.0, value_text(value)) if value is None or value == ABSENT else (1, 0.0, value_text(value))


def is_numeric(value: Value) -> bool:
    """A finite number that an axis has a place for, which a truth value is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= 2**53


def distinct(values: Iterable[Value]) -> list[Value]:
    """Each value once, in order."""
    return sorted({value_text(value): value for value in values}.values(), key=value_order)
