"""Figures: what is drawn is what was given, and every text can be read."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from fontTools import subset
from matplotlib.backends import _backend_pdf_ps
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from experiments.config.scores import Score
from experiments.figures.ablation_curves import Curve, ablation_figure, mean_curve
from experiments.figures.communities import MAXIMUM_KEYS, NONE, CommunityPanel, community_figure
from experiments.figures.community_colours import COMMUNITY_COLOURS, SMALLER, community_looks
from experiments.figures.graph_layout import graph_layout
from experiments.figures.importance_spectrum import Spectrum, importance_figure, spectra_of
from experiments.figures.interaction_graph import GraphPanel, interaction_graph_figure
from experiments.figures.layers import short_layer_names
from experiments.figures.saving import save_figure
from experiments.figures.style import NEUTRAL, PAGE_WIDTH, TEXT_SIZE, group_styles, lightened
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from libcore.basis import Basis
from libcore.graph import InteractionGraph
from libcore.statistics import LayerStatistics

PRE, MID, OUTPUT = LAYERS = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "output")
N_FEATURES = {PRE: 9, MID: 13, OUTPUT: 60}
SHOWN = {PRE: 20, MID: 150}


def random_graph(layers=LAYERS, n_features=N_FEATURES) -> InteractionGraph:
    """Importances falling by a tenth per feature, two directions dropped, edges of constants by far the strongest."""
    generator = torch.Generator().manual_seed(0)
    statistics, bases, edges = {}, {}, {}
    for layer in layers:
        k, constant = n_features[layer], layer != OUTPUT
        d = k + 2 * constant
        statistics[layer] = LayerStatistics(torch.zeros(d), torch.eye(d), 1)
        importance = 0.9 ** torch.arange(d, dtype=torch.float64)
        importance[0] = 7.0 if constant else 1.0
        bases[layer] = Basis(torch.eye(d)[:, :k], torch.eye(d)[:k], importance, has_constant=constant)
    for layer, next_layer in pairwise(layers):
        strength = torch.rand(n_features[next_layer], n_features[layer], generator=generator).double() ** 4
        strength[:, 0] = 100.0
        if next_layer != OUTPUT:
            strength[0] = 100.0
        edges[layer] = strength
    return InteractionGraph(tuple(layers), statistics, bases, edges)


def table_of(graph: InteractionGraph, label: str = "cos({}(x+y))") -> FeatureTable:
    """Three communities in turn; the constant has none."""
    sizes = {layer: graph.bases[layer].n_features for layer in graph.node_layers}
    return FeatureTable(
        {layer: ["constant", *(label.format(i) for i in range(1, k))] for layer, k in sizes.items()},
        {layer: [NO_COMMUNITY, *(i % 4 - 1 for i in range(1, k))] for layer, k in sizes.items()},
    )


def panel_of(graph: InteractionGraph | None = None, shown: dict[str, int] = SHOWN, title: str = "LIB") -> GraphPanel:
    graph = graph or random_graph()
    return GraphPanel(title, graph, table_of(graph), shown)


def artist(figure: Figure, gid: str):
    (found,) = figure.findobj(lambda candidate: candidate.get_gid() == gid)
    return found


def texts_of(figure: Figure) -> list[Text]:
    figure.canvas.draw()
    not_drawn = set()  # tick labels that exist, but not on the page
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not (axis.axes.axison and low <= tick.get_loc() <= high):
                not_drawn.add(tick.label1)
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in not_drawn]


def assert_legible(figure: Figure) -> None:
    """No text is small, leaves the page or touches another one."""
    texts = texts_of(figure)
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert text.get_fontsize() >= TEXT_SIZE
        assert "$\\mathdefault" not in text.get_text(), "superscripts are smaller than the text"
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
    lowest, highest = np.array([box.min for box in boxes]), np.array([box.max for box in boxes])
    apart = ((lowest[:, None] >= highest) | (lowest >= highest[:, None])).any(-1)
    touching = np.argwhere(~apart & ~np.eye(len(texts), dtype=bool))
    assert not len(touching), [(texts[first], texts[second]) for first, second in touching]
    assert figure.get_figwidth() == PAGE_WIDTH


def drawn_features(figure: Figure, layer: str) -> set[int]:
    prefix = f"feature/{layer}/"
    return {
        int(box.get_gid().removeprefix(prefix))
        for box in figure.findobj(lambda candidate: (candidate.get_gid() or "").startswith(prefix))
    }


def strongest(graph: InteractionGraph, layer: str, n: int) -> tuple[set[tuple[int, int]], np.ndarray]:
    """The `n` strongest edges without constants as (source, target), and their strengths in falling order."""
    strength = graph.edges[layer].clone()
    strength[:, 0] = 0.0
    if layer != graph.node_layers[-2]:
        strength[0] = 0.0
    values, flat = strength.flatten().sort(descending=True)
    return {(int(i % strength.shape[1]), int(i // strength.shape[1])) for i in flat[:n]}, values[:n].numpy()


def curve(group: str, run: str, scores: dict[int, float], needed: dict[float, int], layer: str = PRE) -> Curve:
    return Curve(group, run, layer, scores, 0.99, needed)


def lines(axes, label: str):
    return [line for line in axes.get_lines() if line.get_label() == label]


class TestInteractionGraph:
    @pytest.mark.parametrize("layer", [PRE, MID])
    def test_the_strongest_variable_edges_are_drawn_with_widths_proportional_to_their_square_root(self, layer):
        panel = panel_of()
        layout = graph_layout(panel.graph, panel.table, SHOWN, maximum_features=40)
        drawn = layout.edges[LAYERS.index(layer)]
        expected, strengths = strongest(panel.graph, layer, SHOWN[layer])
        assert set(zip(drawn.source.tolist(), drawn.target.tolist(), strict=True)) == expected

        curves = artist(interaction_graph_figure([panel]), f"edges/{layer}")
        widths = np.sort(curves.get_linewidths())[::-1]
        assert len(curves.get_segments()) == SHOWN[layer]
        np.testing.assert_allclose(widths / widths[0], np.sqrt(strengths / strengths[0]))

    def test_curves_start_and_end_at_their_features(self):
        panel = panel_of(shown={PRE: 20, MID: 15})
        figure = interaction_graph_figure([panel])
        edges = graph_layout(panel.graph, panel.table, panel.shown_edges, maximum_features=40).edges[0]
        for source, target, segment in zip(
            edges.source, edges.target, artist(figure, f"edges/{PRE}").get_segments(), strict=True
        ):
            left = artist(figure, f"feature/{PRE}/{source}").get_bbox()
            right = artist(figure, f"feature/{MID}/{target}").get_bbox()
            np.testing.assert_allclose(segment[0], (left.x1, (left.y0 + left.y1) / 2))
            np.testing.assert_allclose(segment[-1], (right.x0, (right.y0 + right.y1) / 2))

    def test_exactly_the_features_with_an_edge_to_show_are_drawn(self):
        panel = panel_of()
        figure = interaction_graph_figure([panel])
        into_mid, out_of_mid = (strongest(panel.graph, layer, SHOWN[layer])[0] for layer in (PRE, MID))
        assert drawn_features(figure, PRE) == {source for source, _ in into_mid}
        assert drawn_features(figure, MID) == {target for _, target in into_mid} | {source for source, _ in out_of_mid}
        assert len(artist(figure, f"features/{OUTPUT}").get_offsets()) == len({target for _, target in out_of_mid})

    def test_past_the_limit_the_most_important_features_are_drawn_and_the_rest_counted(self):
        graph = random_graph()
        graph.bases[MID].importance[3] = 1e-9
        figure = interaction_graph_figure([panel_of(graph, {PRE: 96, MID: 12 * 60})], maximum_features=8)
        assert drawn_features(figure, MID) == {1, 2, 4, 5, 6, 7, 8, 9}
        texts = [text.get_text() for text in texts_of(figure)]
        assert "8\n+ 4 not drawn" in texts
        assert f"{8 * 8}/96 edges" in texts
        assert len(artist(figure, f"edges/{PRE}").get_segments()) == 8 * 8

    def test_colours_follow_communities(self):
        panel = panel_of()
        figure = interaction_graph_figure([panel])
        by_community: dict[int, set] = {}
        for layer in (PRE, MID):
            for feature in drawn_features(figure, layer):
                colour = artist(figure, f"feature/{layer}/{feature}").get_edgecolor()
                by_community.setdefault(panel.table.communities[layer][feature], set()).add(colour)
        assert set(by_community) == {NO_COMMUNITY, 0, 1, 2}
        assert all(len(colours) == 1 for colours in by_community.values())
        assert len(set.union(*by_community.values())) == 4
        assert same_color(by_community.pop(NO_COMMUNITY).pop(), NEUTRAL)
        looks = community_looks(panel.table)
        assert all(same_color(colours.pop(), looks[number].colour) for number, colours in by_community.items())

    def test_edges_within_a_community_have_its_colour_and_others_are_grey(self):
        panel = panel_of()
        figure = interaction_graph_figure([panel])
        edges = graph_layout(panel.graph, panel.table, SHOWN, maximum_features=40).edges[0]
        colours = artist(figure, f"edges/{PRE}").get_colors()
        shared = 0
        for source, target, colour in zip(edges.source, edges.target, colours, strict=True):
            community = panel.table.communities[PRE][source]
            same = community == panel.table.communities[MID][target]
            box = artist(figure, f"feature/{PRE}/{source}").get_edgecolor()
            assert same_color(colour[:3], box[:3] if same else NEUTRAL)
            shared += same and community != NO_COMMUNITY
        assert 0 < shared < len(colours)

    def test_communities_are_blocks_in_the_same_order_in_every_layer(self):
        panel = panel_of()
        order = []
        for drawn in graph_layout(panel.graph, panel.table, SHOWN, maximum_features=40).layers:
            communities = [panel.table.communities[drawn.layer][feature] for feature in drawn.features]
            order.append(list(dict.fromkeys(communities)))
            assert len(order[-1]) == 1 + sum(a != b for a, b in pairwise(communities))
        assert order[0] == order[1] == order[2]
        assert order[0][-1] == NO_COMMUNITY

    def test_features_are_ordered_so_that_a_matching_has_no_crossing(self):
        graph = random_graph((PRE, MID), {PRE: 13, MID: 13})
        partner = torch.randperm(12, generator=torch.Generator().manual_seed(1)) + 1
        graph.edges[PRE].zero_()
        graph.edges[PRE][partner, torch.arange(1, 13)] = 1.0
        table = FeatureTable(table_of(graph).labels, {layer: [NO_COMMUNITY] + [0] * 12 for layer in (PRE, MID)})
        left, right = graph_layout(graph, table, {PRE: 144}, maximum_features=40).layers
        assert right.features == tuple(partner[feature - 1].item() for feature in left.features)

    @pytest.mark.parametrize(("n_panels", "n_layers"), [(1, 3), (2, 3), (1, 6), (2, 6), (1, 20)])
    def test_all_texts_are_legible_inside_the_page_and_apart_from_each_other(self, n_panels, n_layers):
        layers = LAYERS if n_layers == 3 else tuple(f"blocks.{index}.hook_resid_pre" for index in range(n_layers))
        graph = random_graph(layers, N_FEATURES if n_layers == 3 else dict.fromkeys(layers, 42 // n_panels))
        panel = GraphPanel("LIB", graph, table_of(graph, "tokens such as ${}\n_"), dict.fromkeys(layers[:-1], 150))
        figure = interaction_graph_figure([panel] * n_panels)
        assert_legible(figure)

    def test_labels_stand_in_their_boxes_and_are_cut_only_where_they_do_not_fit(self):
        graph = random_graph()
        table = table_of(graph)
        table.labels[PRE][1] = "many words " * 20
        figure = interaction_graph_figure([GraphPanel("LIB", graph, table, {PRE: 96, MID: 20})])
        figure.canvas.draw()
        for layer in (PRE, MID):
            for feature in drawn_features(figure, layer):
                label, box = artist(figure, f"label/{layer}/{feature}"), artist(figure, f"feature/{layer}/{feature}")
                inner, outer = label.get_window_extent(), box.get_window_extent()
                assert outer.x0 <= inner.x0 <= inner.x1 <= outer.x1
                assert outer.y0 <= inner.y0 <= inner.y1 <= outer.y1
                if (layer, feature) != (PRE, 1):
                    assert label.get_text() == table.labels[layer][feature]
        cut = artist(figure, f"label/{PRE}/1").get_text()
        assert cut.endswith("…")
        assert table.labels[PRE][1].startswith(cut[:-1])

    @pytest.mark.parametrize(("n_layers", "beside"), [(4, True), (5, False)])
    def test_two_panels_stand_beside_each_other_if_their_layers_have_room(self, n_layers, beside):
        layers = tuple(f"blocks.{index}.hook_resid_pre" for index in range(n_layers))
        graph = random_graph(layers, dict.fromkeys(layers, 6))
        panels = [panel_of(graph, dict.fromkeys(layers[:-1], 5), title) for title in ("LIB", "PCA")]
        left, right = (axes.get_position() for axes in interaction_graph_figure(panels).axes)
        assert bool(left.x1 < right.x0) is beside
        assert bool(left.y0 > right.y1) is not beside

    def test_no_panel_is_refused(self):
        with pytest.raises(ValueError, match="no interaction graph"):
            interaction_graph_figure([])


class TestCommunities:
    def panel(self, graph: InteractionGraph | None = None, modularity: float | None = 0.25) -> CommunityPanel:
        graph = graph or random_graph()
        return CommunityPanel("LIB, seed 0", graph, table_of(graph), modularity)

    @pytest.mark.parametrize("layer", LAYERS)
    def test_keys_are_features_that_vary_by_importance_in_their_community_s_colour(self, layer):
        graph = random_graph()
        graph.bases[layer].importance[5] = 5.0
        panel = self.panel(graph)
        figure = community_figure([panel])
        keys = artist(figure, f"keys/{layer}")
        first = int(layer != OUTPUT)
        expected = [5, *(feature for feature in range(first, N_FEATURES[layer]) if feature != 5)]
        assert panel.keys(layer) == expected
        looks = {NO_COMMUNITY: NONE} | community_looks(panel.table)
        for feature, colour in zip(expected, keys.get_facecolor(), strict=True):
            assert same_color(colour, looks[panel.table.communities[layer][feature]].colour)
        assert len({path.vertices[:, 1].min() for path in keys.get_paths()}) == 1
        lefts = [path.vertices[:, 0].min() for path in keys.get_paths()]
        assert lefts == sorted(lefts)

    def test_its_caption_says_how_modular_it_is_and_in_how_many_parts(self):
        panel = self.panel()
        sizes = {community: 0 for community in range(3)}
        for of_layer in panel.table.communities.values():
            for community in of_layer:
                if community != NO_COMMUNITY:
                    sizes[community] += 1
        texts = [text.get_text() for text in texts_of(community_figure([panel]))]
        assert "LIB, seed 0: modularity 0.250, 3 communities" in texts
        assert [text for text in texts if text in {f"{size} features" for size in sizes.values()}]
        assert "no community" in texts
        without = [text.get_text() for text in texts_of(community_figure([self.panel(modularity=None)]))]
        assert "LIB, seed 0: 3 communities" in without

    def test_a_community_of_one_is_none_the_second_round_is_hollow_and_the_rest_are_grey(self):
        n_colours = len(COMMUNITY_COLOURS)
        n = 2 * n_colours + 3
        graph = random_graph((PRE, MID), {PRE: n + 2, MID: n + 1})
        pairs = [NO_COMMUNITY, *range(n)]
        table = FeatureTable(table_of(graph).labels, {PRE: [*pairs, n], MID: pairs})
        figure = community_figure([CommunityPanel("LIB", graph, table, 0.5)])
        faces, frames = artist(figure, f"keys/{PRE}").get_facecolor(), artist(figure, f"keys/{PRE}").get_edgecolor()
        expected = [*COMMUNITY_COLOURS, *["white"] * n_colours, *[SMALLER.colour] * 3, NONE.colour]
        assert all(same_color(found, colour) for found, colour in zip(faces, expected, strict=True))
        hollow = frames[n_colours : 2 * n_colours]
        assert all(same_color(found, colour) for found, colour in zip(hollow, COMMUNITY_COLOURS, strict=True))
        assert "3 smaller communities" in [text.get_text() for text in texts_of(figure)]

    @pytest.mark.parametrize(
        ("n_layers", "n_features", "n_panels"), [(2, 2, 1), (3, 100, 2), (11, 66, 2), (25, 400, 1)]
    )
    def test_all_texts_are_legible_and_all_keys_on_the_page(self, n_layers, n_features, n_panels):
        layers = tuple(f"blocks.{index}.ln1.hook_normalized" for index in range(n_layers))
        panel = self.panel(random_graph(layers, dict.fromkeys(layers, n_features)))
        figure = community_figure([panel] * n_panels)
        assert_legible(figure)
        for axes in figure.axes:
            drawn = [collection for collection in axes.collections if "keys/" in collection.get_gid()]
            assert len(drawn) == n_layers
            for keys in drawn:
                assert len(keys.get_paths()) == min(MAXIMUM_KEYS, n_features - 1)
                right = max(path.vertices[:, 0].max() for path in keys.get_paths())
                assert right <= axes.get_xlim()[1]
        texts = [text.get_text() for text in texts_of(figure)]
        assert (f"{MAXIMUM_KEYS} of {n_features - 1}" in texts) is (n_features > MAXIMUM_KEYS)

    def test_no_panel_is_refused(self):
        with pytest.raises(ValueError, match="no communities"):
            community_figure([])


class TestAblationCurves:
    def test_nothing_needed_is_marked_at_the_left_end(self, tmp_path):
        figure = ablation_figure([curve("lib", "seed 0", {2: 0.9, 8: 0.99, 0: 0.9}, {0.1: 0})], "node")
        (axes,) = figure.axes
        (mark,) = lines(axes, "lib needed")
        assert mark.get_xdata().tolist() == [2]
        save_figure(figure, tmp_path, "drawn")

    @pytest.mark.parametrize("scores", [{}, {0: 1.0}])
    def test_a_layer_of_which_nothing_varies_has_its_axes(self, scores, tmp_path):
        """Only the constant, and no edges: an axis without points, the needed count at its left end."""
        curves = [curve("lib", run, scores, {0.001: 0}) for run in ("0", "1")]
        for some in (curves[:1], curves, [*curves, curve("pca", "0", {1: 0.5, 8: 0.9}, {0.001: 8})]):
            figure = ablation_figure(some, "edge")
            (axes,) = figure.axes
            assert all(x > 0 for line in lines(axes, "lib needed") for x in line.get_xdata())
            save_figure(figure, tmp_path, "ablation")

    def excess_figure(self, scores: dict[int, float], needed: dict[float, int]) -> Figure:
        return ablation_figure([curve("lib", "seed 0", scores, needed)], "node", Score("cross-entropy", True))

    def test_a_cross_entropy_is_drawn_as_what_it_grows_by_on_a_logarithmic_axis(self, tmp_path):
        figure = self.excess_figure({1: 900.99, 8: 1.49, 16: 0.995, 32: 0.98}, {0.01: 16, 0.1: 9})
        (axes,) = figure.axes
        (line,) = lines(axes, "lib run")
        np.testing.assert_allclose(line.get_ydata(), [900.0, 0.5, 0.005, -0.01])
        assert axes.get_yscale() == "log"
        assert axes.get_ylim() == pytest.approx((0.001, 1800.0))
        # The dashed line is what is still tolerated.
        assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"] == [0.01]
        texts = [text.get_text() for text in texts_of(figure)]
        assert "cross-entropy above the unablated\n(nats per token)" in texts
        assert "0.01 above the unablated" in texts
        assert_legible(figure)
        save_figure(figure, tmp_path, "drawn")

    def test_a_cross_entropy_that_overflowed_or_never_grew_is_no_obstacle(self, tmp_path):
        figure = self.excess_figure({1: float("nan"), 2: float("inf"), 4: 0.99, 8: 0.9}, {0.01: 4})
        (axes,) = figure.axes
        assert lines(axes, "lib run")[0].get_xdata().tolist() == [4, 8]
        assert axes.get_ylim() == pytest.approx((0.001, 0.02))
        save_figure(figure, tmp_path, "drawn")

    def test_a_single_run_is_one_line_through_its_points_with_its_needed_count(self):
        scores = {0: 0.0, 1: 0.1, 10: 0.6, 100: 0.99}
        figure = ablation_figure([curve("lib", "0", scores, {0.05: 40, 0.001: 77})], "node")
        (axes,) = figure.axes
        (line,) = lines(axes, "lib run")
        np.testing.assert_array_equal(line.get_xydata(), [(1, 0.1), (10, 0.6), (100, 0.99)])
        assert axes.get_xscale() == "log"
        assert axes.get_title() == "resid_pre"
        (mark,) = lines(axes, "lib needed")
        assert mark.get_xdata().tolist() == [77]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["LIB  77"]
        assert not lines(axes, "lib mean")
        unablated = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in unablated] == [0.99]

    def test_several_runs_are_thin_lines_and_their_mean(self):
        curves = [curve("lib", str(run), {1: 0.0, 10: 0.1 * run, 100: 1.0}, {0.001: 10 + 2 * run}) for run in range(3)]
        curves += [curve("pca", str(run), {1: 0.0, 100: 1.0}, {}) for run in range(2)]
        (axes,) = ablation_figure(curves, "edge").axes
        (mean,) = lines(axes, "lib mean")
        np.testing.assert_allclose(mean.get_xydata(), [(1, 0.0), (10, 0.1), (100, 1.0)])
        assert [len(lines(axes, f"{group} run")) for group in ("lib", "pca")] == [3, 2]
        assert all(line.get_linewidth() < mean.get_linewidth() for line in lines(axes, "lib run"))
        assert lines(axes, "lib needed")[0].get_xdata().tolist() == [10, 12, 14]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["LIB  12 ± 2", "PCA"]
        assert axes.get_title() == "edges from resid_pre"

    def test_a_spread_over_some_of_the_runs_says_so(self):
        curves = [curve("lib", str(run), {1: 0.0, 9: 1.0}, {0.01: 4 + run} if run else {}) for run in range(3)]
        (axes,) = ablation_figure(curves, "node").axes
        assert axes.get_legend().get_texts()[0].get_text() == "LIB  6 ± 1 (2 of 3 runs)"

    def test_the_mean_interpolates_in_the_logarithm_and_only_where_all_runs_were_measured(self):
        kept, scores = mean_curve([curve("a", "0", {1: 0.0, 100: 1.0}, {}), curve("a", "1", {10: 0.3, 1000: 0.3}, {})])
        np.testing.assert_allclose(kept, [10, 100])
        np.testing.assert_allclose(scores, [0.4, 0.65])

    def test_every_node_layer_has_its_own_axes_in_order(self):
        layers = [f"blocks.{index}.hook_resid_mid" for index in range(5)]
        figure = ablation_figure([curve("lib", "0", {1: 0.0, 9: 1.0}, {}, layer) for layer in layers], "node")
        assert [axes.get_title() for axes in figure.axes] == [f"block {index} resid_mid" for index in range(5)]

    def test_texts_neither_overlap_nor_leave_the_page(self):
        curves = [
            curve(group, str(run), {1: 0.0, 70 + run: 0.5, 8321: 1.0}, {0.001: 700}, layer)
            for group in ("lib", "pca", "svd", "random")
            for run in range(5)
            for layer in (PRE, MID, OUTPUT)
        ]
        assert_legible(ablation_figure(curves, "edge"))

    def test_no_curve_is_refused(self):
        with pytest.raises(ValueError, match="no ablation curve"):
            ablation_figure([], "node")


class TestImportanceSpectrum:
    def test_spectra_leave_out_the_constant_and_the_outputs(self):
        pre, mid = spectra_of(random_graph(), "lib", "0")
        assert (pre.layer, mid.layer) == (PRE, MID)
        assert (pre.n_kept, pre.n_directions) == (8, 10)
        np.testing.assert_allclose(pre.importance, 0.9 ** np.arange(1, 11))

    def test_kept_directions_are_a_line_and_dropped_ones_are_dotted(self):
        spectrum = Spectrum("lib", "0", PRE, np.array([4.0, 2.0, 1.0, 0.5, 0.0]), n_kept=3, n_directions=7)
        figure = importance_figure([spectrum])
        (axes,) = figure.axes
        (kept,), (dropped,), (last,) = (lines(axes, f"lib {part}") for part in ("kept", "dropped", "last"))
        np.testing.assert_array_equal(kept.get_xydata(), [(1, 1.0), (2, 0.5), (3, 0.25)])
        np.testing.assert_array_equal(dropped.get_xydata(), [(4, 0.125), (5, np.nan)])
        assert (kept.get_linestyle(), dropped.get_linestyle()) == ("-", ":")
        np.testing.assert_array_equal(last.get_xydata(), [(3, 0.25)])
        assert axes.get_yscale() == "log"
        assert axes.get_legend().get_texts()[0].get_text() == "3 of 7 kept"

    def test_the_axis_has_room_below_the_kept_for_dropped_directions_alone(self):
        importance = np.array([4.0, 2.0, 1.0, 0.5])
        for n_kept, bottom in ((4, 0.0625), (3, 2.5e-6)):
            (axes,) = importance_figure([Spectrum("lib", "0", PRE, importance, n_kept, 4)]).axes
            assert axes.get_ylim() == pytest.approx((bottom, 3.0))

    def test_a_layer_of_which_nothing_varies_has_its_axes(self, tmp_path):
        (axes,) = (figure := importance_figure([Spectrum("lib", "0", PRE, np.empty(0), 0, 4)])).axes
        assert axes.get_xlim()[0] > 0
        save_figure(figure, tmp_path, "spectrum")

    def test_the_mean_over_runs_is_geometric_and_covers_what_all_kept(self):
        spectra = [
            Spectrum("pca", "0", PRE, np.array([1.0, 0.1, 0.01]), 3, 3),
            Spectrum("pca", "1", PRE, np.array([2.0, 0.002, 0.001]), 2, 3),
        ]
        (axes,) = importance_figure(spectra).axes
        (mean,) = lines(axes, "pca mean")
        np.testing.assert_allclose(mean.get_xydata(), [(1, 1.0), (2, 0.01)])
        assert axes.get_legend().get_texts()[0].get_text() == "2–3 of 3 kept"

    def test_the_legend_says_what_each_method_sorts_by(self):
        graph = random_graph()
        figure = importance_figure([*spectra_of(graph, "lib", "0"), *spectra_of(graph, "pca", "0")])
        assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["LIB (Λ)", "PCA (variance)"]
        assert_legible(figure)

    def test_a_layer_that_nothing_varies_in_is_drawn_empty(self):
        figure = importance_figure([Spectrum("lib", "0", PRE, np.zeros(0), 0, 5)])
        figure.canvas.draw()
        assert figure.axes[0].get_legend().get_texts()[0].get_text() == "0 of 5 kept"

    def test_no_spectrum_is_refused(self):
        with pytest.raises(ValueError, match="no importance spectrum"):
            importance_figure([])


class TestStyle:
    def test_colours_of_known_groups_do_not_depend_on_the_company(self):
        alone, together = group_styles(["pca"]), group_styles(["sparse", "lib", "pca", "another"])
        assert alone["pca"].colour == together["pca"].colour
        assert len({style.colour for style in together.values()}) == len({s.marker for s in together.values()}) == 4
        reordered = group_styles(["another", "pca", "sparse", "lib"])
        assert {name: style.colour for name, style in reordered.items()} == {
            name: style.colour for name, style in together.items()
        }

    def test_lightened_mixes_with_white(self):
        assert lightened("#000000", 0.2) == "#333333"
        assert lightened("#123456", 1.0) == "#ffffff"

    def test_short_layer_names(self):
        assert short_layer_names(LAYERS) == {PRE: "resid_pre", MID: "resid_mid", OUTPUT: "output"}
        names = short_layer_names(["blocks.0.hook_resid_pre", "blocks.11.attn.hook_z", "layers.2"])
        assert list(names.values()) == ["block 0\nresid_pre", "block 11\nattn.z", "layers.2"]

    def test_building_and_saving_leave_the_settings_of_matplotlib_alone(self, tmp_path):
        before = dict(matplotlib.rcParams)
        save_figure(interaction_graph_figure([panel_of()]), tmp_path, "graph")
        assert dict(matplotlib.rcParams) == before

    def test_importing_the_package_does_not_load_matplotlib(self):
        code = "import sys, experiments.figures, experiments.pipeline; assert 'matplotlib' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)


class TestSaving:
    def test_writes_a_png_of_200_dots_per_inch_and_a_pdf(self, tmp_path):
        figure = ablation_figure([curve("lib", "0", {1: 0.0, 9: 1.0}, {})], "node")
        png, pdf = save_figure(figure, tmp_path / "figures", "ablation")
        assert (png.name, pdf.name) == ("ablation.png", "ablation.pdf")
        assert matplotlib.image.imread(png).shape[1] == 200 * PAGE_WIDTH
        assert pdf.read_bytes().startswith(b"%PDF")
        assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["ablation.pdf", "ablation.png"]

    def test_a_figure_is_laid_out_once_for_both_files(self, tmp_path, monkeypatch):
        laid_out = []
        execute = ConstrainedLayoutEngine.execute
        monkeypatch.setattr(
            ConstrainedLayoutEngine, "execute", lambda self, figure: [laid_out.append(figure), execute(self, figure)]
        )
        figure = ablation_figure([curve("lib", "0", {1: 0.0, 9: 1.0}, {})], "node")
        save_figure(figure, tmp_path, "ablation")
        assert laid_out == [figure]

    def test_a_pdf_s_fonts_have_letters_alone_and_fonttools_is_left_as_it_was(self, tmp_path, monkeypatch):
        embedded, embed = [], _backend_pdf_ps.font_as_file
        monkeypatch.setattr(
            _backend_pdf_ps, "font_as_file", lambda font: [embedded.append(set(font.keys())), embed(font)][1]
        )
        before = list(subset.Options().drop_tables)
        save_figure(ablation_figure([curve("lib", "0", {1: 0.0, 9: 1.0}, {})], "node"), tmp_path, "ablation")
        assert embedded
        assert all("glyf" in tables and not tables & {"GSUB", "GPOS", "GDEF", "kern"} for tables in embedded)
        assert subset.Options().drop_tables == before

    def test_equal_figures_give_equal_files(self, tmp_path):
        first, second = (
            [
                path.read_bytes()
                for path in save_figure(interaction_graph_figure([panel_of()]), tmp_path / name, "graph")
            ]
            for name in ("first", "second")
        )
        assert first == second

    def test_a_failed_write_leaves_the_file_that_was_there(self, tmp_path, monkeypatch):
        figure = ablation_figure([curve("lib", "0", {1: 0.0, 9: 1.0}, {})], "node")
        png, pdf = save_figure(figure, tmp_path, "ablation")
        before = png.read_bytes()

        def interrupted(path, **_):
            path.write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(figure, "savefig", interrupted)
        with pytest.raises(OSError, match="disk full"):
            save_figure(figure, tmp_path, "ablation")
        assert png.read_bytes() == before
        assert sorted(tmp_path.iterdir()) == [pdf, png]
