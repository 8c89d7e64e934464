"""Figures over many methods, or methods of long names: their names do not cover what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.figures.ablation_curves import Curve, ablation_figure
from experiments.figures.importance_spectrum import Spectrum, importance_figure
from experiments.figures.legends import width_in

FEW = ["lib", "pca"]
MANY = [f"method {number}" for number in range(9)]
LONG = ["lib", "sparse dictionary (name=dictionary, function=my_package.methods:fit_dictionary)"]


def ablations_of(groups: list[str]) -> Figure:
    scores = {1: 0.1, 10: 0.5, 100: 0.9}
    return ablation_figure([Curve(group, "seed 0", "layers.0", scores, 0.9, {0.01: 100}) for group in groups], "node")


def spectra_of(groups: list[str]) -> Figure:
    importance = np.array([4.0, 2.0, 1.0])
    return importance_figure([Spectrum(group, "seed 0", "layers.0", importance, 3, 4) for group in groups])


def above(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def within(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_few_short_names_stand_beside_their_counts():
    figure = ablations_of(FEW)
    assert within(figure) == ["LIB  100", "PCA  100"]
    assert "LIB" not in above(figure)


@pytest.mark.parametrize("groups", [MANY, LONG])
def test_others_stand_above_all_axes(groups):
    figure = ablations_of(groups)
    assert within(figure) == ["100"] * len(groups)
    assert above(figure)[: len(groups)] == [group if group != "lib" else "LIB" for group in groups]


@pytest.mark.parametrize("draw", [ablations_of, spectra_of])
@pytest.mark.parametrize("groups", [FEW, MANY, LONG])
def test_legends_are_within_the_figure_and_leave_room(draw, groups):
    figure = draw(groups)
    figure.canvas.draw()
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    position = figure.axes[0].get_position()
    assert position.height * figure.get_figheight() > 1.0


def test_columns_of_a_legend_are_as_wide_as_their_own_entries():
    widths = [5, 40, 7, 9]
    assert [width_in(widths, n) for n in (1, 2, 3, 4)] == [40, 40 + 9, 40 + 7 + 9, 61]


def test_what_fits_into_one_row_stands_in_one():
    figure = ablations_of(FEW)
    figure.canvas.draw()
    rows = {round(text.get_window_extent().y0) for text in figure.legends[0].get_texts()}
    assert len(rows) == 1
