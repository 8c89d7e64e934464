"""Everything that a run's pages show, as the data that each of them embeds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from experiments.pages.correlations import feature_correlations, strongest_matches
from experiments.pages.embedded_contexts import embedded_contexts
from experiments.pages.embedded_graph import embedded_communities, embedded_layer, embedded_pair
from experiments.pages.embedded_images import Embedded, embedded_pictures
from experiments.pipeline.feature_table import FeatureTable
from libcore.eigen import RELATIVE
from libcore.estimators.signed import SignedEdges
from libcore.graph import InteractionGraph
from libcore.layer_by_layer import principal_basis
from models.analysed import QUANTILES, FeaturePicture, TokenContexts

FORMAT = 1
"""Of the embedded data, raised with every change of it: a comparison reads pages of its own format only."""
PRINCIPAL_MATCHES = 3
"""Principal components named for a feature."""
LISTED_EDGES = 12
"""Strongest edges on either side of a feature that is described, in a page without a graph."""


@dataclass(frozen=True)
class RunContent:
    """What there is to show of one run.

    Attributes:
        title: heading.
        summary: lines under the heading, such as model, method and score.
        graph: features and edges.
        table: label and community of every feature.
        shown_edges: by node layer, the last one excepted: how many of the strongest edges from it to the next node
            layer, constant features apart, are drawn at first.
        pictures: by node layer, of its first features in the basis's order.
        contexts: of a language model's features.
        signed: by node layer, signed means of the attributions.
    """

    title: str
    summary: dict[str, str]
    graph: InteractionGraph
    table: FeatureTable
    shown_edges: dict[str, int]
    pictures: dict[str, list[FeaturePicture]] = field(default_factory=dict)
    contexts: TokenContexts | None = None
    signed: dict[str, SignedEdges] = field(default_factory=dict)

    @cached_property
    def described(self) -> Embedded:
        """All but the edges: what a run's pages have in common, and what takes long is done once for all of them."""
        return described_features(self)


def run_data(content: RunContent) -> Embedded:
    """The data of the graph's page, JSON's types only.

    Raises ValueError if a node layer has not one label and one community per feature or has more examples than
    features, if `shown_edges` lacks a layer, or if a number is not finite.
    """
    return content.described | {"pairs": embedded_pairs(content, content.graph, content.shown_edges)}


def listed_data(content: RunContent) -> Embedded:
    """The same for a page without a graph: of edges each feature's strongest, none drawn. Raises as `run_data`."""
    listed = replace(content.graph, edges=listed_edges_only(content))
    return content.described | {"pairs": embedded_pairs(content, listed, dict.fromkeys(listed.node_layers[:-1], 0))}


def embedded_pairs(content: RunContent, graph: InteractionGraph, shown_edges: dict[str, int]) -> list[Embedded]:
    """The edges of `graph`, by pair of node layers."""
    return [
        embedded_pair(graph, layer, shown_edges, content.signed.get(layer))
        for layer in graph.node_layers[:-1]
        if layer in graph.edges
    ]


def described_features(content: RunContent) -> Embedded:
    """Features with their examples, and what these are made of."""
    graph, images, tokens = content.graph, None, None
    described: dict[str, Embedded] = {}
    if content.contexts is not None:
        described, tokens = embedded_contexts(graph, content.contexts)
    elif content.pictures:
        described, images = embedded_pictures(graph, content.pictures)
    nothing: Embedded = {"first": 0, "examples": []}
    return {
        "format": FORMAT,
        "title": content.title,
        "layers": [
            embedded_layer(graph, content.table, layer)
            | described.get(layer, nothing)
            | {"principal": principal_matches(graph, layer)}
            for layer in graph.node_layers
        ],
        "communities": embedded_communities(content.table),
        "quantiles": list(QUANTILES),
        "tokens": tokens,
        "images": images,
    }


def principal_matches(graph: InteractionGraph, layer: str) -> list[list[tuple[int, float]]]:
    """Which features of a PCA of the same activations each feature correlates with; empty where that says nothing.

    Numbered as in a PCA run, whose features these are; it needs the run's own Gram alone.
    """
    basis = graph.bases[layer]
    if layer not in graph.statistics or not basis.has_constant or graph.metadata.get("method") == "pca":
        return []
    statistics = graph.statistics[layer]
    components = principal_basis(statistics, basis.has_constant, RELATIVE, torch.float64)
    return strongest_matches(feature_correlations(statistics, basis, components), PRINCIPAL_MATCHES)


def listed_edges_only(content: RunContent) -> dict[str, torch.Tensor]:
    """The graph's edges, all set to zero but each feature's `LISTED_EDGES` strongest to and from features that vary."""
    kept: dict[str, torch.Tensor] = {}
    for layer, strengths in content.graph.edges.items():
        keep = torch.zeros_like(strengths, dtype=torch.bool)
        next_layer = content.graph.node_layers[content.graph.node_layers.index(layer) + 1]
        rows, columns = content.graph.bases[next_layer].variable, content.graph.bases[layer].variable
        variable, of_variable = strengths[rows, columns], keep[rows, columns]
        for dim in (0, 1):
            n = min(LISTED_EDGES, variable.shape[dim])
            of_variable.scatter_(dim, variable.topk(n, dim=dim).indices, True)
        kept[layer] = torch.where(keep, strengths, 0.0)
    return kept
