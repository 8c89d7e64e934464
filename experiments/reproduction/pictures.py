"""Figures of the sweeps' reports as small PNGs beside the document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.whole_files import written_whole

WIDEST, COLOURS = 1000, 128
"""Pixels; 128 colours leave curves and graphs as they are, at a third of the bytes."""


def copy_figures(report: Path, names: Sequence[str], experiment: str, folder: Path) -> dict[str, str]:
    """Write those figures that the report has into `folder`; their file names by what they show."""
    from PIL import Image

    copied: dict[str, str] = {}
    for name in names:
        source = report / "figures" / f"{name}.png"
        if not source.is_file():
            continue
        file = f"{experiment}_{name}.png"
        with Image.open(source) as picture:
            small = picture.convert("RGB")
            small.thumbnail((WIDEST, 10 * WIDEST))
            with written_whole(folder / file) as path:
                small.quantize(COLOURS).save(path, format="PNG", optimize=True)
        copied[name] = file
    return copied
