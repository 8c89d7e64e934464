"""Errors that a user can cause."""

from __future__ import annotations

from libcore.messages import one_line


class UserError(Exception):
    """Something only the user can mend: shown as one line, exit status 2, whatever a value in it holds."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))
