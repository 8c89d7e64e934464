"""Errors as one line for the user."""

from __future__ import annotations


def one_line(message: object) -> str:
    """What an error or another object says, or its type if it says nothing, without line breaks."""
    return " ".join(str(message).split()) or type(message).__name__


def first_line(error: BaseException) -> str:
    """An error's own first line, without the explanations and hints that follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


LONGEST_REASON = 160


def short_reason(error: BaseException) -> str:
    """An error of another library, to stand in brackets within a line."""
    return first_line(error)[:LONGEST_REASON]
