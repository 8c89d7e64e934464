"""Figures as files: a PNG to look at and a PDF to print, each written whole."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fontTools import subset
from matplotlib.figure import Figure

from experiments.figures.style import styled
from models.whole_files import written_whole

DOTS_PER_INCH = 200
DROPPED_TABLES = "_drop_tables_default"
FOR_SETTING_TEXT = ["GDEF", "GPOS", "GSUB", "kern"]
"""Tables of a font that place letters, which have their places in a PDF."""


@styled
def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<folder>/<name>.png` and `.pdf`, under a temporary name first, and return both paths.

    No date is written, so that equal figures give equal files. The folder is made if it is missing.
    """
    settle_layout(figure)
    paths = []
    for suffix, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        path = folder / f"{name}.{suffix}"
        with written_whole(path) as temporary, glyphs_alone():
            figure.savefig(temporary, format=suffix, dpi=DOTS_PER_INCH, metadata=metadata)
        paths.append(path)
    return paths


def settle_layout(figure: Figure) -> None:
    """Lay the figure out once, at the resolution of the PNG: each file would have it laid out, and drawn, once more."""
    if (engine := figure.get_layout_engine()) is not None:
        figure.set_dpi(DOTS_PER_INCH)
        engine.execute(figure)
        figure.set_layout_engine("none")


@contextmanager
def glyphs_alone() -> Generator[None, None, None]:
    """Have matplotlib embed fonts without `FOR_SETTING_TEXT`: to cut them down takes longer than the letters do."""
    dropped = getattr(subset.Options, DROPPED_TABLES, None)
    if dropped is None:
        yield
        return
    setattr(subset.Options, DROPPED_TABLES, [*dropped, *FOR_SETTING_TEXT])
    try:
        yield
    finally:
        setattr(subset.Options, DROPPED_TABLES, dropped)
