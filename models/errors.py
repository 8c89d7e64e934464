"""Errors that a user can cause, and how a name that is off gets its nearest valid one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something only the user can mend: shown as one line, exit status 2."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing where no valid name is near."""
    close = get_close_matches(name, [other for other in valid if other != name], n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
