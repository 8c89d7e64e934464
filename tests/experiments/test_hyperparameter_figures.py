"""Measures against a swept key: where values stand, a line for each method, and nothing outside of the axes."""

from __future__ import annotations

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from experiments.figures.hyperparameters import SweptRun, hyperparameter_figure
from experiments.figures.style import group_styles
from experiments.figures.value_axis import ValueAxis, shortened

KEY, OTHER, MEASURE = "analysis.truncation", "analysis.integration", "edges needed"


def runs_of(
    values: dict[object, tuple[float, ...]], group: str = "lib", other: str = "gradient", **more: float
) -> list[SweptRun]:
    """Runs of one method: by the key's value, the measure in each run."""
    return [
        SweptRun(group, {KEY: value, OTHER: other}, {MEASURE: measure} | more)
        for value, measures in values.items()
        for measure in measures
    ]


def lines_of(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Places and means by label."""
    found = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line = container.lines[0]
        found[str(container.get_label())] = (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
    return found


def bars_of(axes: Axes) -> list[list[float]]:
    """Lower and upper ends of all error bars."""
    return [
        [float(end[1]) for end in segment]
        for container in axes.containers
        if isinstance(container, ErrorbarContainer)
        for collection in container.lines[2]
        for segment in collection.get_segments()
    ]


def drawn(runs: list[SweptRun]) -> Axes:
    (axes,) = hyperparameter_figure(runs, KEY, [MEASURE]).axes
    return axes


def ticks_of(axes: Axes) -> list[str]:
    axes.get_figure(root=True).canvas.draw()
    return [label.get_text() for label in axes.get_xticklabels()]


class TestLines:
    def test_one_for_each_method_through_the_means_of_its_runs(self):
        runs = runs_of({1e-12: (4.0, 6.0), 1e-15: (1.0, 3.0)}) + runs_of({1e-15: (7.0,), 1e-12: (8.0,)}, "pca")
        axes = drawn(runs)
        lines = lines_of(axes)
        assert lines[f"lib {OTHER}=gradient"] == ([1e-15, 1e-12], [2.0, 5.0])
        assert lines[f"pca {OTHER}=gradient"] == ([1e-15, 1e-12], [7.0, 8.0])
        root = 2**0.5
        assert bars_of(axes) == [pytest.approx([2 - root, 2 + root]), pytest.approx([5 - root, 5 + root])]
        colours = [container.lines[0].get_color() for container in axes.containers]  # pyright: ignore
        assert colours == [style.colour for style in group_styles(["lib", "pca"]).values()]

    def test_everything_is_within_the_axes(self):
        axes = drawn(runs_of({1e-15: (100.0, 300.0), 1e-12: (1.0,)}))
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert left < 1e-15
        assert right > 1e-12
        ends = [value for bar in bars_of(axes) for value in bar]
        assert low < min(*ends, 1.0)
        assert high > max(ends)

    def test_a_few_combinations_of_other_keys_have_their_line_styles(self):
        runs = runs_of({1: (4.0,), 2: (5.0,)}) + runs_of({1: (6.0,), 2: (7.0,)}, other="trapezoidal")
        figure = hyperparameter_figure(runs, KEY, [MEASURE])
        styles = [container.lines[0].get_linestyle() for container in figure.axes[0].containers]  # pyright: ignore
        assert styles == ["-", "--"]
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["LIB", f"{OTHER}=gradient", f"{OTHER}=trapezoidal"]

    def test_many_are_thin_lines_behind_their_mean(self):
        runs = [run for n in range(5) for run in runs_of({1: (float(n),), 2: (n + 10.0,)}, other=f"rule{n}")]
        axes = drawn(runs)
        lines = lines_of(axes)
        assert len(lines) == 6
        assert lines["lib mean"] == ([1.0, 2.0], [2.0, 12.0])
        assert bars_of(axes) == []

    def test_a_random_search_is_marks_alone(self):
        runs = [run for n in range(5) for run in runs_of({n: (float(n), n + 2.0)}, other=f"rule{n}")]
        figure = hyperparameter_figure(runs, KEY, [MEASURE])
        lines = [container.lines[0] for container in figure.axes[0].containers]  # pyright: ignore
        assert [line.get_linestyle() for line in lines] == ["None"] * 5
        assert [float(line.get_ydata()[0]) for line in lines] == [n + 1.0 for n in range(5)]
        assert len(bars_of(figure.axes[0])) == 5
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["LIB"]

    def test_a_run_without_the_measure_is_left_out(self):
        runs = runs_of({1: (4.0,), 2: (5.0,)})
        axes = drawn([*runs, SweptRun("lib", {KEY: 3, OTHER: "gradient"}, {})])
        assert lines_of(axes)[f"lib {OTHER}=gradient"] == ([1.0, 2.0], [4.0, 5.0])

    def test_equal_values_are_not_magnified(self):
        low, high = drawn(runs_of({1: (0.5,), 2: (0.5,)})).get_ylim()
        assert low < 0.48
        assert high > 0.52

    def test_an_axes_for_each_measure_that_is_there(self):
        runs = runs_of({1: (4.0,), 2: (5.0,)}, modularity=0.5)
        figure = hyperparameter_figure(runs, KEY, [MEASURE, "absent", "modularity"])
        assert [axes.get_title() for axes in figure.axes] == [MEASURE, "modularity"]

    def test_nothing_to_draw(self):
        with pytest.raises(ValueError, match=r"no measure to draw against analysis\.truncation"):
            hyperparameter_figure(runs_of({1: (4.0,)}), KEY, ["absent"])

    def test_a_method_s_name_is_no_formula(self):
        runs = runs_of({1: (4.0,), 2: (5.0,)}, r"$\x")
        with matplotlib.rc_context({"text.parse_math": False}):
            hyperparameter_figure(runs, KEY, [MEASURE]).canvas.draw()


class TestAxis:
    def test_decades_are_logarithmic_and_ticked_at_the_values(self):
        axes = drawn(runs_of({1e-15: (1.0,), 1e-12: (2.0,), 1e-9: (3.0,)}))
        assert axes.get_xscale() == "log"
        assert ticks_of(axes) == ["1e-15", "1e-12", "1e-09"]

    def test_numbers_close_together_are_linear(self):
        axes = drawn(runs_of({10: (1.0,), 5: (2.0,), 39: (3.0,)}))
        assert axes.get_xscale() == "linear"
        assert ticks_of(axes) == ["5", "10", "39"]

    @pytest.mark.parametrize(
        ("values", "has_room"),
        [
            ([1e-15, 1e-12, 1e-9], True),
            ([5, 10, 20, 39], True),
            ([7], True),
            ([0.0, 0.2102857904154225, 0.37897720147015124, 0.42221092576252406], False),
            ([1, 2, 100], True),
            ([1, 2, 3, 2000], False),
            (list(range(30)), False),
        ],
    )
    def test_numbers_are_written_at_their_places_where_there_is_room(self, values, has_room):
        assert ValueAxis(values).has_room() is has_room

    def test_zero_has_a_place(self):
        axis = ValueAxis([0, 1e-15, 1e-3])
        assert (axis.is_numeric, axis.is_logarithmic) == (True, False)

    @pytest.mark.parametrize("values", [["b", "a"], [True, False], [3, None], [[50, 50], [10]], ["auto", 2]])
    def test_names_stand_side_by_side(self, values):
        axis = ValueAxis(values)
        assert not axis.is_numeric
        assert sorted(map(axis.place, values)) == [0.0, 1.0]

    def test_names_are_written_below_their_places(self):
        axes = drawn(runs_of({"gradient": (1.0,), "gauss_legendre": (2.0,)}))
        assert ticks_of(axes) == ["gauss_legendre", "gradient"]
        assert lines_of(axes)[f"lib {OTHER}=gradient"] == ([0.0, 1.0], [2.0, 1.0])

    def test_long_names_leave_room_for_the_plot(self):
        names = ["blocks.*.hook_resid_pre", "[blocks.0.hook_resid_mid, blocks.1.hook_resid_mid, output]", "a", "b", "c"]
        axes = drawn(runs_of({name: (1.0,) for name in names}))
        assert ticks_of(axes) == ["[blocks…output]", "a", "b", "blocks.*…resid_pre", "c"]
        assert axes.get_position().height > 0.4

    def test_a_name_is_shortened_in_its_middle(self):
        assert shortened("gauss_legendre") == "gauss_legendre"
        assert shortened("abcdefghijklmnopqrstuvwxyz") == "abcdefgh…rstuvwxyz"
