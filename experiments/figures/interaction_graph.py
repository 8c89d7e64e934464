"""The interaction graph as a picture: node layers as columns, features as boxes, interactions as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.community_colours import community_looks
from experiments.figures.graph_captions import caption_columns, caption_gaps, footer_height, header_height
from experiments.figures.graph_columns import place_columns, rows_height
from experiments.figures.graph_drawing import NONE, draw_boxes, draw_dots, draw_edges, edge_colours
from experiments.figures.graph_layout import GraphLayout, graph_layout
from experiments.figures.style import GREY_TEXT, PAGE_WIDTH, new_figure, styled
from experiments.pipeline.feature_table import FeatureTable
from libcore.graph import InteractionGraph

MAXIMUM_FEATURES = 40
"""Labelled boxes in one column: about as many lines as a page has room for."""

SIDE_BY_SIDE_LAYERS = 4
"""Panels of more node layers than this have no room for labels at half the page's width, and are stacked."""

LOWEST_COLUMNS = 180.0
MARGIN, SPACING, TITLE_SPACE, KEY_SPACE = 4.0, 16.0, 16.0, 18.0
"""Points: around the figure; between panels; above each panel; below all."""

KEY = (
    "Curves: interactions, width proportional to √E within a pair of layers. "
    "Colour: community; grey: none, or two different."
)


@dataclass(frozen=True)
class GraphPanel:
    """One graph to draw.

    Attributes:
        title: above the panel.
        graph: features and edges.
        table: labels and communities of the features.
        shown_edges: how many of the strongest edges to show, by node layer that they leave.
    """

    title: str
    graph: InteractionGraph
    table: FeatureTable
    shown_edges: dict[str, int]


@styled
def interaction_graph_figure(panels: Sequence[GraphPanel], maximum_features: int = MAXIMUM_FEATURES) -> Figure:
    """The panels at page width: side by side where labels have room, else one above the other.

    At most `maximum_features` features per node layer are drawn (`graph_layout`). Raises ValueError without panels.
    """
    if not panels:
        raise ValueError("no interaction graph to draw; expected at least one panel")
    layouts = [graph_layout(panel.graph, panel.table, panel.shown_edges, maximum_features) for panel in panels]
    beside = max(len(layout.layers) for layout in layouts) <= SIDE_BY_SIDE_LAYERS
    n_columns = min(2, len(panels)) if beside else 1
    n_rows = math.ceil(len(panels) / n_columns)

    width = (72 * PAGE_WIDTH - 2 * MARGIN - (n_columns - 1) * SPACING) / n_columns
    footer = max(footer_height(layout, width) for layout in layouts)
    header = max(header_height(layout, width) for layout in layouts)
    height = header + max(columns_height(layout, maximum_features) for layout in layouts) + footer
    full_width, full_height = 72 * PAGE_WIDTH, n_rows * (height + TITLE_SPACE) + KEY_SPACE
    figure = new_figure(full_height / 72)
    for index, (panel, layout) in enumerate(zip(panels, layouts, strict=True)):
        row, column = divmod(index, n_columns)
        left = MARGIN + column * (width + SPACING)
        bottom = full_height - (row + 1) * (height + TITLE_SPACE)
        axes = figure.add_axes(
            (left / full_width, bottom / full_height, width / full_width, height / full_height), title=panel.title
        )
        plot_interaction_graph(layout, panel.table, axes, maximum_labels=maximum_features, header=header, footer=footer)
    figure.text(0.5, MARGIN / full_height, KEY, ha="center", va="bottom", color=GREY_TEXT)
    return figure


def columns_height(layout: GraphLayout, maximum_labels: int) -> float:
    """Points that the fullest column needs."""
    return max(LOWEST_COLUMNS, *(rows_height(drawn, maximum_labels) for drawn in layout.layers))


def plot_interaction_graph(
    layout: GraphLayout, table: FeatureTable, axes: Axes, *, maximum_labels: int, header: float, footer: float
) -> Axes:
    """Draw into an Axes whose size is settled: its data coordinates become points, which labels are measured in.

    Layers of more than `maximum_labels` features are drawn as dots; `header` and `footer` are the heights kept for
    captions.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None, "an Axes to draw into belongs to a figure"
    window = axes.get_window_extent()
    width, height = float(72 * window.width / figure.dpi), float(72 * window.height / figure.dpi)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()

    columns = place_columns(layout.layers, table, width, (footer, height - header), maximum_labels=maximum_labels)
    looks = community_looks(table)
    for edges, left, right in zip(layout.edges, columns, columns[1:], strict=False):
        draw_edges(edges, left, right, edge_colours(edges, table, looks), axes)
    for column in columns:
        of_features = [looks.get(table.communities[column.layer][feature], NONE) for feature in column.height]
        if column.labels is None:
            draw_dots(column, of_features, axes)
        else:
            draw_boxes(column, column.labels, of_features, axes)
    caption_columns(layout, columns, footer, axes)
    caption_gaps(layout, columns, axes)
    return axes
