"""The bar that a terminal shows while a stage goes on."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


def bar() -> Progress:
    """Stage, bar, share, seconds so far and left, and a text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
        transient=True,
    )
