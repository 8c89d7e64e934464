"""Which features and edges of an interaction graph are drawn, and in which order: no drawing here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int

from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from libcore.graph import InteractionGraph

SWEEPS = 12
"""Passes of the barycentre heuristic over all layers; the modular-addition graphs' orders are stable after these."""

MAXIMUM_OUTPUTS = 200
"""Outputs are drawn as dots when they are many; more than this of them run into each other on a page."""

Node = tuple[str, int]
"""A node layer and the number of a feature in its basis."""


@dataclass(frozen=True)
class DrawnLayer:
    """One column.

    Attributes:
        layer: node layer.
        features: numbers of the features in the basis, top to bottom.
        n_connected: how many features have an edge among those to show, drawn or not.
    """

    layer: str
    features: tuple[int, ...]
    n_connected: int


@dataclass(frozen=True)
class DrawnEdges:
    """The edges between one column and the next, weakest first.

    Attributes:
        layer: node layer that they leave.
        next_layer: node layer that they enter.
        source: numbers of the features that they leave, `[edge]`.
        target: numbers of the features that they enter, `[edge]`.
        strength: `E`, squared, `[edge]`.
        n_shown: how many there were to show, those of features left out included.
    """

    layer: str
    next_layer: str
    source: Int[np.ndarray, " edge"]
    target: Int[np.ndarray, " edge"]
    strength: Float[np.ndarray, " edge"]
    n_shown: int


@dataclass(frozen=True)
class GraphLayout:
    """Columns first to last and the edges between them."""

    layers: tuple[DrawnLayer, ...]
    edges: tuple[DrawnEdges, ...]


def graph_layout(
    graph: InteractionGraph, table: FeatureTable, shown_edges: Mapping[str, int], maximum_features: int
) -> GraphLayout:
    """The `shown_edges[layer]` strongest variable edges of every pair of layers and the features that they join.

    Of a layer with more than `maximum_features` of those the most important are drawn; of the last layer, if its
    features are the model's outputs (no constant among them), `MAXIMUM_OUTPUTS`. Features are grouped by community,
    largest first, and ordered within by the mean position of their neighbours (barycentre heuristic), so that few
    edges cross.
    """
    edges = [strongest_edges(graph, layer, next_layer, shown_edges[layer]) for layer, next_layer in graph.pairs()]
    connected = connected_features(graph, edges)
    drawn = {layer: most_important(graph, layer, connected[layer], maximum_features) for layer in graph.node_layers}
    edges = [edges_between(pair, drawn[pair.layer], drawn[pair.next_layer]) for pair in edges]
    order = ordered(connected_features(graph, edges), edges, table)
    layers = tuple(DrawnLayer(layer, tuple(order[layer]), len(connected[layer])) for layer in graph.node_layers)
    return GraphLayout(layers, tuple(edges))


def strongest_edges(graph: InteractionGraph, layer: str, next_layer: str, n: int) -> DrawnEdges:
    """The `n` strongest edges between two layers that touch no constant feature; those of no strength never count."""
    strength = graph.variable_edges(layer)
    n = min(n, int((strength > 0).sum()))
    strongest, flat = torch.topk(strength.double().flatten(), n)
    flat = flat.flip(0).cpu().numpy()
    return DrawnEdges(
        layer,
        next_layer,
        source=flat % strength.shape[1] + int(graph.bases[layer].has_constant),
        target=flat // strength.shape[1] + int(graph.bases[next_layer].has_constant),
        strength=strongest.flip(0).cpu().numpy(),
        n_shown=n,
    )


def connected_features(graph: InteractionGraph, edges: list[DrawnEdges]) -> dict[str, set[int]]:
    """Features that at least one of the edges leaves or enters."""
    connected: dict[str, set[int]] = {layer: set() for layer in graph.node_layers}
    for pair_edges in edges:
        connected[pair_edges.layer] |= set(pair_edges.source.tolist())
        connected[pair_edges.next_layer] |= set(pair_edges.target.tolist())
    return connected


def most_important(graph: InteractionGraph, layer: str, features: set[int], maximum: int) -> set[int]:
    """At most `maximum` of the features, or `MAXIMUM_OUTPUTS` where they are the model's outputs."""
    if layer == graph.node_layers[-1] and not graph.bases[layer].has_constant:
        maximum = max(maximum, MAXIMUM_OUTPUTS)
    importance = graph.bases[layer].importance
    return set(sorted(features, key=lambda feature: (-importance[feature].item(), feature))[:maximum])


def edges_between(edges: DrawnEdges, sources: set[int], targets: set[int]) -> DrawnEdges:
    """Those of the edges that join two of these features."""
    inside = np.isin(edges.source, list(sources)) & np.isin(edges.target, list(targets))
    return replace(edges, source=edges.source[inside], target=edges.target[inside], strength=edges.strength[inside])


def ordered(features: dict[str, set[int]], edges: list[DrawnEdges], table: FeatureTable) -> dict[str, list[int]]:
    """Features of every layer top to bottom: communities as blocks in one order for all layers, neighbours level."""
    sizes = Counter(table.communities[layer][feature] for layer, drawn in features.items() for feature in drawn)
    by_size = sorted(sizes, key=lambda community: (community == NO_COMMUNITY, -sizes[community], community))
    block = {community: index for index, community in enumerate(by_size)}
    neighbours = neighbours_of(edges)
    height: dict[Node, float] = {}

    def place(layer: str, key: Callable[[int], float]) -> list[int]:
        communities = table.communities[layer]
        order = sorted(features[layer], key=lambda feature: (block[communities[feature]], key(feature), feature))
        height.update({(layer, feature): (index + 0.5) / len(order) for index, feature in enumerate(order)})
        return order

    def barycentre(layer: str, feature: int) -> float:
        around = neighbours[layer, feature]
        return sum(weight * height[node] for node, weight in around) / sum(weight for _, weight in around)

    order = {layer: place(layer, float) for layer in features}
    for sweep in range(SWEEPS):
        for layer in features if sweep % 2 == 0 else reversed(features):
            order[layer] = place(layer, partial(barycentre, layer))
    return order


def neighbours_of(edges: list[DrawnEdges]) -> dict[Node, list[tuple[Node, float]]]:
    """For every feature, as node layer and number, those that it shares an edge with, and the edges' `sqrt(E)`."""
    neighbours: dict[Node, list[tuple[Node, float]]] = defaultdict(list)
    for pair_edges in edges:
        weights = np.sqrt(pair_edges.strength).tolist()
        for source, target, weight in zip(pair_edges.source.tolist(), pair_edges.target.tolist(), weights, strict=True):
            neighbours[pair_edges.layer, source].append(((pair_edges.next_layer, target), weight))
            neighbours[pair_edges.next_layer, target].append(((pair_edges.layer, source), weight))
    return neighbours
