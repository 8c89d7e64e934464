"""Peak memory against the number of tokens as a figure: flat lines, or not."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.figures.style import MARKERS, PALETTE, new_grid, styled


@styled
def memory_figure(memory: dict[str, Any]) -> Figure:
    """A line for each stage, from zero."""
    figure, (axes,) = new_grid(1, 1, 2.4, 0.2)
    axes.set_title(f"{memory['model']}, memory budget {memory['budget']} MB")
    axes.set_xscale("log")
    tokens: set[int] = set()
    for number, (stage, peaks) in enumerate(memory["peaks"].items()):
        at = sorted(map(int, peaks))
        tokens.update(at)
        values = [peaks[str(n_tokens)] for n_tokens in at]
        axes.plot(at, values, color=PALETTE[number], marker=MARKERS[number], markersize=4, label=stage)
    axes.xaxis.set_major_locator(FixedLocator(sorted(tokens)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n_tokens, _: f"{n_tokens:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("tokens")
    axes.set_ylabel("peak memory (MB)")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.legend(loc="lower right")
    return figure
