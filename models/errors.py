"""Errors that a user can cause."""

from __future__ import annotations


class UserError(Exception):
    """Something only the user can mend: shown as one line, exit status 2."""
