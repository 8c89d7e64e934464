"""Node layers in a figure: their names in short, and a grid with one Axes for each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.style import new_grid

MAXIMUM_COLUMNS = 3
ROW_HEIGHT = 2.1


def short_layer_names(layers: Sequence[str]) -> dict[str, str]:
    """Names without what all of them share: `blocks.0.hook_resid_pre` becomes `resid_pre`.

    Where there is more than one block the name keeps its block's number, on a line of its own before it.
    """
    parts = {layer: re.fullmatch(r"blocks\.(\d+)\.(.+)", layer.replace("hook_", "")) for layer in layers}
    blocks = {match[1] for match in parts.values() if match}
    return {
        layer: layer if match is None else (match[2] if len(blocks) == 1 else f"block {match[1]}\n{match[2]}")
        for layer, match in parts.items()
    }


def layer_grid(layers: Sequence[str], prefix: str = "") -> tuple[Figure, dict[str, Axes]]:
    """A figure with one titled Axes per node layer, at most three in a row, sharing the vertical axis."""
    figure, axes = new_grid(len(layers), MAXIMUM_COLUMNS, ROW_HEIGHT, 0.4, share_y=True)
    grid = dict(zip(layers, axes, strict=True))
    for layer, name in short_layer_names(layers).items():
        grid[layer].set_title(prefix + name.replace("\n", " "))
    return figure, grid
