"""Importance of a node layer's features against their rank, with the directions that were dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from experiments.figures.groups import group_label, group_quantity
from experiments.figures.layers import layer_grid
from experiments.figures.legends import legend_above
from experiments.figures.style import NEUTRAL, TEXT_SIZE, GroupStyle, group_styles, styled
from libcore.graph import InteractionGraph

BELOW_SMALLEST_KEPT = 0.5
"""How far below the smallest kept feature the axis reaches."""
BELOW_WITH_DROPPED = 1e-5
"""The same where directions were dropped, which trail off to zero."""


@dataclass(frozen=True)
class Spectrum:
    """Importances of one node layer in one run, the constant feature left out.

    Attributes:
        group: what is averaged over and drawn in one colour, such as the method's name.
        run: which of the group's runs, such as its seed.
        layer: node layer.
        importance: of all directions that have one, largest first, `[direction]`; LIB gives none to directions in which
            the activation does not vary.
        n_kept: how many of them became features.
        n_directions: how many there are in all: the width of the activation.
    """

    group: str
    run: str
    layer: str
    importance: Float[np.ndarray, " direction"]
    n_kept: int
    n_directions: int

    def relative(self) -> Float[np.ndarray, " direction"]:
        """Importance over the largest; not-a-number where it is zero, which a logarithmic axis has no place for."""
        return np.where(self.importance > 0, self.importance, np.nan) / self.importance.max(initial=0.0)

    def rank(self) -> Int[np.ndarray, " direction"]:
        """One for the most important."""
        return np.arange(1, len(self.importance) + 1)


def spectra_of(graph: InteractionGraph, group: str, run: str) -> list[Spectrum]:
    """Spectra of all node layers but the last, whose features are given and not found."""
    spectra = []
    for layer in graph.node_layers[:-1]:
        basis = graph.bases[layer]
        constant = int(basis.has_constant)
        importance = np.sort(basis.importance[constant:].double().cpu().numpy())[::-1]
        n_directions = basis.to_basis.shape[0] - constant
        spectra.append(Spectrum(group, run, layer, importance, basis.n_features - constant, n_directions))
    return spectra


@styled
def importance_figure(spectra: Sequence[Spectrum]) -> Figure:
    """One Axes per node layer in the order of the spectra, one colour per group. Raises ValueError without spectra."""
    if not spectra:
        raise ValueError("no importance spectrum to draw; expected at least one")
    layers = list(dict.fromkeys(spectrum.layer for spectrum in spectra))
    styles = group_styles([spectrum.group for spectrum in spectra])
    figure, grid = layer_grid(layers)
    for layer, axes in grid.items():
        plot_importance([spectrum for spectrum in spectra if spectrum.layer == layer], styles, axes)
    figure.supxlabel("rank", fontsize=TEXT_SIZE)
    figure.supylabel("importance / largest", fontsize=TEXT_SIZE)
    kept = np.concatenate([spectrum.relative()[: spectrum.n_kept] for spectrum in spectra])
    any_dropped = any(len(spectrum.importance) > spectrum.n_kept for spectrum in spectra)
    below = BELOW_WITH_DROPPED if any_dropped else BELOW_SMALLEST_KEPT
    grid[layers[0]].set_ylim(np.nanmin(kept, initial=1.0) * below, 3.0)
    key = [Line2D([], [], color=style.colour, label=group_and_quantity(group)) for group, style in styles.items()]
    key.append(Line2D([], [], color=NEUTRAL, marker="|", linestyle="none", markersize=8, label="last kept"))
    key.append(Line2D([], [], color=NEUTRAL, linestyle=":", label="dropped"))
    legend_above(figure, key)
    return figure


def plot_importance(spectra: Sequence[Spectrum], styles: dict[str, GroupStyle], axes: Axes) -> Axes:
    """The spectra of one node layer; its legend says how many of how many directions became features."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0e}"))  # an exponent set as one would be too small to read
    handles = []
    for group, style in styles.items():
        members = [spectrum for spectrum in spectra if spectrum.group == group]
        if not members:
            continue
        for spectrum in members:
            colour, width = (style.pale, 0.6) if len(members) > 1 else (style.colour, style.width)
            plot_spectrum(spectrum, colour, width, axes)
            last = slice(max(0, spectrum.n_kept - 1), spectrum.n_kept)
            axes.plot(
                spectrum.rank()[last],
                spectrum.relative()[last],
                "|",
                color=style.colour,
                markersize=8,
                label=f"{group} last",
            )
        if len(members) > 1:
            mean = geometric_mean(members)
            rank = members[0].rank()[: len(mean)]
            axes.plot(rank, mean, color=style.colour, linewidth=style.width, label=f"{group} mean", zorder=3)
        handles.append(Line2D([], [], color=style.colour, linewidth=style.width, label=kept_text(members)))
    if not any(len(spectrum.importance) for spectrum in spectra):
        axes.set_xlim(0.5, 1.5 + max(spectrum.n_directions for spectrum in spectra))  # ranks count from one
    axes.legend(handles=handles, loc="best")
    return axes


def plot_spectrum(spectrum: Spectrum, colour: str, width: float, axes: Axes) -> None:
    """Kept directions as a line, dropped ones dotted."""
    relative, kept = spectrum.relative(), spectrum.n_kept
    rank = spectrum.rank()
    look: dict[str, Any] = {"color": colour, "linewidth": width}
    axes.plot(rank[:kept], relative[:kept], label=f"{spectrum.group} kept", **look)
    axes.plot(rank[kept:], relative[kept:], linestyle=":", label=f"{spectrum.group} dropped", **look)


def geometric_mean(spectra: Sequence[Spectrum]) -> Float[np.ndarray, " rank"]:
    """Mean over runs at the ranks that all of them kept."""
    shared = min(spectrum.n_kept for spectrum in spectra)
    return np.exp(np.mean([np.log(spectrum.relative()[:shared]) for spectrum in spectra], axis=0))


def group_and_quantity(group: str) -> str:
    """The group and what it sorts by, where that is known: the groups' spectra are of different quantities."""
    quantity = group_quantity(group)
    return group_label(group) if quantity is None else f"{group_label(group)} ({quantity})"


def kept_text(spectra: Sequence[Spectrum]) -> str:
    """How many of how many directions were kept, as ranges over several runs."""
    kept, directions = [spectrum.n_kept for spectrum in spectra], [spectrum.n_directions for spectrum in spectra]
    return f"{span(kept)} of {span(directions)} kept"


def span(numbers: Sequence[int]) -> str:
    """The number, or the smallest and the largest."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"
