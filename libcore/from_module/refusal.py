"""What cannot be read, said in one line."""

from __future__ import annotations


class NotRead(ValueError):
    """A module, a node layer or an operation that cannot be read; the message says which, and what is expected."""
