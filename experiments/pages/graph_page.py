"""The interactive interaction graph of one run: `figures/graph.html`, one file that needs nothing else.

What the page shows and how it behaves is in `templates/graph.html`; here the graph becomes the numbers it embeds.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.pages.contact_sheet_images import Embedded, embedded_picture
from experiments.pages.html_page import write_html_page
from experiments.pipeline.feature_table import FeatureTable
from libcore.graph import InteractionGraph
from models.analysed import FeaturePicture

MAX_EDGES_PER_PAIR = 15_000
"""More are neither legible nor quick to redraw; enough for all edges between two layers of 122 features."""


def write_graph_page(
    path: Path,
    graph: InteractionGraph,
    table: FeatureTable,
    shown_edges: dict[str, int],
    title: str,
    summary: dict[str, str] | None = None,
    pictures: dict[str, list[FeaturePicture]] | None = None,
    described: dict[str, range] | None = None,
) -> None:
    """Write the page that shows `graph`; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if it is missing.
        graph: features and edges. Of each layer pair the page holds the `MAX_EDGES_PER_PAIR` strongest edges above zero
            and says out of how many.
        table: label and community of every feature.
        shown_edges: by node layer, the last one excepted: how many of the strongest edges from it to the next node
            layer, constant features apart, are drawn at first.
        title: heading.
        summary: lines under the heading, such as model, method and score.
        pictures: by node layer, of its first features in the basis's order; a feature's panel shows them.
        described: by node layer, the features that `features.html` beside this page describes; their panels link there.

    Raises ValueError if a node layer has not one label and one community per feature or has more pictures than
    features, if `shown_edges` lacks a layer, or if an importance or edge is not finite.
    """
    pictures, described = pictures or {}, described or {}
    data = {
        "layers": [
            embedded_layer(graph, table, layer)
            | {"pictures": embedded_pictures(graph, layer, pictures.get(layer, []))}
            | {"described": list(described.get(layer, []))}
            for layer in graph.node_layers
        ],
        "pairs": [embedded_pair(graph, layer, shown_edges) for layer in graph.node_layers[:-1]],
    }
    n_pictured = max(map(len, pictures.values()), default=0)
    write_html_page(path, "graph.html", data, title=title, summary=summary or {}, n_pictured=n_pictured)


def embedded_layer(graph: InteractionGraph, table: FeatureTable, layer: str) -> Embedded:
    """Features of one node layer, in the basis's order."""
    basis = graph.bases[layer]
    labels, communities = table.labels.get(layer, []), table.communities.get(layer, [])
    if not len(labels) == len(communities) == basis.n_features:
        raise ValueError(
            f"{layer}: {len(labels)} labels and {len(communities)} communities for {basis.n_features} features; "
            "expected one each per feature"
        )
    importance = basis.importance[: basis.n_features]
    refuse_non_finite(importance, f"importance/{layer}")
    return {
        "name": layer,
        "constant": basis.has_constant,
        "labels": labels,
        "communities": communities,
        "importance": rounded(importance),
    }


def embedded_pictures(graph: InteractionGraph, layer: str, pictures: list[FeaturePicture]) -> list[Embedded | None]:
    """Contact sheets of a node layer's first features; None for one that has no image, such as the constant's."""
    if len(pictures) > graph.bases[layer].n_features:
        raise ValueError(
            f"{layer}: {len(pictures)} pictures for {graph.bases[layer].n_features} features; expected one each at most"
        )
    return [
        embedded_picture(picture) if picture.highest or picture.direction is not None else None for picture in pictures
    ]


def embedded_pair(graph: InteractionGraph, layer: str, shown_edges: dict[str, int]) -> Embedded:
    """Edges from one node layer to the next, strongest first; those of constant features apart and all of them."""
    if layer not in shown_edges:
        raise ValueError(
            f"shown_edges has no {layer!r}; expected one number for each of {list(graph.node_layers[:-1])}"
        )
    next_layer = graph.node_layers[graph.node_layers.index(layer) + 1]
    first_row, first_column = int(graph.bases[next_layer].has_constant), int(graph.bases[layer].has_constant)
    of_constants, variable = graph.edges[layer].clone(), graph.edges[layer].clone()
    of_constants[first_row:, first_column:] = 0
    variable[:first_row] = 0
    variable[:, :first_column] = 0
    return {
        "shown": shown_edges[layer],
        "total": graph.variable_edges(layer).numel(),
        "edges": strongest(variable, MAX_EDGES_PER_PAIR, layer),
        "constantEdges": strongest(of_constants, of_constants.numel(), layer),
    }


def strongest(strengths: Float[Tensor, "feature_out feature_in"], most: int, layer: str) -> Embedded:
    """The `most` strongest edges above zero, strongest first, as parallel lists; equal ones in row-major order."""
    refuse_non_finite(strengths, f"edges/{layer}")
    values, order = strengths.flatten().sort(descending=True, stable=True)
    n_kept = min(most, int((values > 0).sum()))
    kept = order[:n_kept]
    return {
        "sources": (kept % strengths.shape[1]).tolist(),
        "targets": (kept // strengths.shape[1]).tolist(),
        "strengths": rounded(values[:n_kept]),
    }


def rounded(values: Float[Tensor, " n"]) -> list[float]:
    """Six significant digits: what the page shows or draws, at a third of the size of all digits."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def refuse_non_finite(values: Float[Tensor, ...], name: str) -> None:
    """JSON has no infinity, and a page that quietly left such an edge out would mislead."""
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} holds a number that is not finite; expected finite numbers only")
