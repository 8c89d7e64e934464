"""Errors as one line for the user."""

from __future__ import annotations


def one_line(message: object) -> str:
    """What an error or another object says, or its type if it says nothing, without line breaks."""
    return " ".join(str(message).split()) or type(message).__name__
