"""The graph's communities as keyboards: node layers as rows, features by importance as keys in community colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.figures.community_colours import SMALLER, CommunityLook, community_looks, community_sizes
from experiments.figures.graph_columns import text_width
from experiments.figures.layers import short_layer_names
from experiments.figures.style import GREY_TEXT, NEUTRAL, PAGE_WIDTH, lightened, new_figure, styled
from experiments.pipeline.feature_table import FeatureTable
from libcore.graph import InteractionGraph

MAXIMUM_KEYS = 150
"""In one row: narrower keys than these are too thin for their colours to be told apart."""

ROW_HEIGHT, KEY_HEIGHT = 15.0, 0.84
"""Points, and the share of them that a key takes."""
TITLE_SPACE, AXIS_SPACE, LEGEND_ROW, MARGIN = 20.0, 28.0, 10.5, 6.0
"""Points: above each panel; below its rows; for each row of the legend; around everything."""
LEGEND_COLUMNS = 5
HOLLOW_LINE = 1.0
"""Points: the frame of a hollow key."""

NONE = CommunityLook(lightened(NEUTRAL, 0.6), hollow=False)
"""Of features in no community."""


@dataclass(frozen=True)
class CommunityPanel:
    """One graph's communities.

    Attributes:
        title: above the panel.
        graph: the features with their importances.
        table: communities of the features, numbered from the largest.
        modularity: score of the partition; None or NaN where there are no edges.
    """

    title: str
    graph: InteractionGraph
    table: FeatureTable
    modularity: float | None

    def keys(self, layer: str) -> list[int]:
        """Numbers of the features that vary, the most important first."""
        basis = self.graph.bases[layer]
        features = range(int(basis.has_constant), basis.n_features)
        importance = basis.importance.tolist()
        return sorted(features, key=lambda feature: -importance[feature])

    def caption(self) -> str:
        """`modularity 0.452, 12 communities`."""
        sizes = community_sizes(self.table)
        count = f"{len(sizes)} {'community' if len(sizes) == 1 else 'communities'}"
        if self.modularity is None or isnan(self.modularity):
            return count
        return f"modularity {self.modularity:.3f}, {count}"


@styled
def community_figure(panels: Sequence[CommunityPanel]) -> Figure:
    """The panels one above the other at page width, each with the sizes of its communities below.

    At most `MAXIMUM_KEYS` features of a node layer are drawn, the most important. Raises ValueError without panels.
    """
    if not panels:
        raise ValueError("no communities to draw; expected at least one panel")
    n_keys = min(MAXIMUM_KEYS, max(len(panel.keys(layer)) for panel in panels for layer in panel.graph.node_layers))
    heights = [panel_height(panel) for panel in panels]
    left = 3 * MARGIN + max(text_width(name) for panel in panels for name in row_names(panel.graph.node_layers))
    right = 3 * MARGIN + text_width("1000 of 1000")
    full_width, full_height = 72 * PAGE_WIDTH, sum(heights) + MARGIN
    figure = new_figure(full_height / 72)
    top = full_height
    for panel, height in zip(panels, heights, strict=True):
        rows = ROW_HEIGHT * len(panel.graph.node_layers)
        axes = figure.add_axes(
            (
                left / full_width,
                (top - TITLE_SPACE - rows) / full_height,
                (full_width - left - right) / full_width,
                rows / full_height,
            )
        )
        plot_communities(panel, axes, n_keys)
        figure.legend(
            handles=legend_of(panel),
            loc="lower center",
            bbox_to_anchor=(0.5, (top - height + MARGIN) / full_height),
            ncols=LEGEND_COLUMNS,
            handlelength=1.0,
            borderpad=0.0,
            borderaxespad=0.0,
        )
        top -= height
    return figure


def panel_height(panel: CommunityPanel) -> float:
    """Points: title, rows, axis and legend."""
    legend_rows = -(-len(legend_of(panel)) // LEGEND_COLUMNS)
    return TITLE_SPACE + ROW_HEIGHT * len(panel.graph.node_layers) + AXIS_SPACE + LEGEND_ROW * legend_rows + MARGIN


def plot_communities(panel: CommunityPanel, axes: Axes, n_keys: int) -> Axes:
    """Rows of at most `n_keys` keys, the first node layer on top; beside each how many features it has."""
    layers = panel.graph.node_layers
    looks = community_looks(panel.table)
    axes.set(xlim=(0.5, n_keys + 0.5), ylim=(len(layers) - 0.5, -0.5), xlabel="feature, by importance")
    axes.set_title(f"{panel.title}: {panel.caption()}", loc="left")
    axes.set_yticks(range(len(layers)), row_names(layers))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    for row, layer in enumerate(layers):
        keys = panel.keys(layer)
        communities = panel.table.communities[layer]
        top, bottom = row - KEY_HEIGHT / 2, row + KEY_HEIGHT / 2
        drawn = [looks.get(communities[feature], NONE) for feature in keys[:n_keys]]
        axes.add_collection(
            PolyCollection(
                [
                    ((x + 0.54, top), (x + 1.46, top), (x + 1.46, bottom), (x + 0.54, bottom))
                    for x in range(min(n_keys, len(keys)))
                ],
                facecolors=["white" if look.hollow else look.colour for look in drawn],
                edgecolors=[look.colour for look in drawn],
                linewidths=[HOLLOW_LINE if look.hollow else 0 for look in drawn],
                gid=f"keys/{layer}",
            ),
            autolim=False,
        )
        count = f"{len(keys)} features" if len(keys) <= n_keys else f"{n_keys} of {len(keys)}"
        axes.annotate(
            count, (1.0, row), (5, 0), axes.get_yaxis_transform(), "offset points", va="center", color=GREY_TEXT
        )
    return axes


def row_names(layers: Sequence[str]) -> list[str]:
    """Node layers in short, each on one line."""
    names = short_layer_names(layers)
    return [names[layer].replace("\n", " ") for layer in layers]


def legend_of(panel: CommunityPanel) -> list[Patch]:
    """Every community that has a look of its own, with its size; the smaller ones together."""
    sizes, looks = community_sizes(panel.table), community_looks(panel.table)
    own = [community for community, look in looks.items() if look != SMALLER]
    handles = [key_patch(looks[community], f"{sizes[community]} features") for community in own]
    if smaller := len(sizes) - len(own):
        handles.append(key_patch(SMALLER, f"{smaller} smaller communities"))
    alone = any(
        panel.table.communities[layer][feature] not in sizes
        for layer in panel.graph.node_layers
        for feature in panel.keys(layer)
    )
    return [*handles, key_patch(NONE, "no community")] if alone or not handles else handles


def key_patch(look: CommunityLook, label: str) -> Patch:
    """A legend's key."""
    return Patch(facecolor="white" if look.hollow else look.colour, edgecolor=look.colour, label=label)
