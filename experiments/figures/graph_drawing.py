"""The parts of an interaction graph's picture: curves for edges, boxes or dots for features, community colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyBboxPatch

from experiments.figures.community_colours import CommunityLook
from experiments.figures.graph_columns import DOT_SIZE, ROW_HEIGHT, Column
from experiments.figures.graph_layout import DrawnEdges
from experiments.figures.style import NEUTRAL, TEXT_SIZE, lightened
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable

WIDEST_EDGE = 2.2
"""Points."""

INK = 0.18
"""How much of the panel's height the edges of one pair of layers may cover side by side: many are drawn thin."""


NONE = CommunityLook(NEUTRAL, hollow=False)
"""Of features in no community, or alone in theirs."""


def edge_colours(edges: DrawnEdges, table: FeatureTable, looks: Mapping[int, CommunityLook]) -> list[str]:
    """The community's colour where both ends share it, else grey: a modular graph is a coloured one."""
    sources = [table.communities[edges.layer][feature] for feature in edges.source.tolist()]
    targets = [table.communities[edges.next_layer][feature] for feature in edges.target.tolist()]
    shared = [a if a == b else NO_COMMUNITY for a, b in zip(sources, targets, strict=True)]
    return [looks.get(community, NONE).colour for community in shared]


def draw_edges(edges: DrawnEdges, left: Column, right: Column, colours: Sequence[str], axes: Axes) -> None:
    """Curves between two columns, of width proportional to `sqrt(E)`."""
    if not len(edges.strength):
        return
    relative = np.sqrt(edges.strength / edges.strength.max())
    widest = min(WIDEST_EDGE, INK * axes.get_ylim()[1] / relative.sum())
    start = np.array([left.height[feature] for feature in edges.source.tolist()])
    end = np.array([right.height[feature] for feature in edges.target.tolist()])
    curves = LineCollection(
        list(curves_between(left.right, right.left, start, end)),
        linewidths=widest * relative,
        colors=list(colours),
        alpha=0.75,
        gid=f"edges/{edges.layer}",
        zorder=1,
    )
    axes.add_collection(curves, autolim=False)


def curves_between(
    left: float, right: float, start: Float[np.ndarray, " edge"], end: Float[np.ndarray, " edge"]
) -> Float[np.ndarray, "edge 33 2"]:
    """Curves that leave and arrive level, as points on the way."""
    share = np.linspace(0.0, 1.0, 33)
    height = start[:, None] + (end - start)[:, None] * (share**2 * (3 - 2 * share))
    across = np.broadcast_to(left + (right - left) * share, height.shape)
    return np.stack([across, height], axis=-1)


def draw_dots(column: Column, looks: Sequence[CommunityLook], axes: Axes) -> None:
    """Features too many to label."""
    heights = list(column.height.values())
    axes.scatter(
        [column.middle] * len(heights),
        heights,
        s=DOT_SIZE**2,
        facecolors=["white" if look.hollow else look.colour for look in looks],
        edgecolors=[look.colour for look in looks],
        linewidths=[0.5 if look.hollow else 0 for look in looks],
        zorder=2,
        clip_on=False,
        gid=f"features/{column.layer}",
    )


def draw_boxes(column: Column, labels: dict[int, str], looks: Sequence[CommunityLook], axes: Axes) -> None:
    """Features as boxes that hold their labels, so that no edge crosses one."""
    height = ROW_HEIGHT - 1.2
    for (feature, middle), look in zip(column.height.items(), looks, strict=True):
        box = FancyBboxPatch(
            (column.left, middle - height / 2),
            column.right - column.left,
            height,
            boxstyle="round,pad=0,rounding_size=2.5",
            facecolor="white" if look.hollow else lightened(look.colour, 0.8),
            edgecolor=look.colour,
            linewidth=1.1 if look.hollow else 0.7,
            zorder=2,
            clip_on=False,
            gid=f"feature/{column.layer}/{feature}",
        )
        axes.add_patch(box)
        axes.text(
            column.middle,
            middle,
            labels[feature],
            ha="center",
            va="center_baseline",
            fontsize=TEXT_SIZE,
            parse_math=False,  # a label may contain a dollar sign
            zorder=3,
            gid=f"label/{column.layer}/{feature}",
        )
