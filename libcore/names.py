"""Names that are off, and the nearest valid one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def nearest(name: Any, valid: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing where no valid name is near."""
    close = get_close_matches(str(name), [other for other in valid if other != name], n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def refuse_other(what: str, value: Any, valid: Sequence[Any]) -> None:
    """Raises ValueError, in one line that begins with `what`, for a value that is none of the valid ones."""
    # Compared by type too: `True` is no 1, and what has no plain comparison (a tensor) is none of them.
    if not any(type(value) is type(one) and value == one for one in valid):
        expected = ", ".join(map(str, valid))
        shown = value if isinstance(value, str) else type(value).__name__ if hasattr(value, "shape") else repr(value)
        raise ValueError(f"{what}={shown}: no such choice{nearest(shown, map(str, valid))}; expected one of {expected}")


def refuse_other_type(what: str, value: Any, expected: type) -> None:
    """Raises ValueError, in one line that begins with `what`, for a value of another type."""
    if not isinstance(value, expected):
        shown = repr(value) if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
        raise ValueError(f"{what}={shown}: expected a {expected.__name__}")
