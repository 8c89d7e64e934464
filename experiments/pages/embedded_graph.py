"""Features and edges as numbers that a page embeds."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.figures.community_colours import SMALLER, community_looks, community_sizes
from experiments.figures.layers import short_layer_names
from experiments.pages.embedded_images import Embedded
from experiments.pipeline.feature_table import FeatureTable
from libcore.estimators.signed import SignedEdges
from libcore.graph import InteractionGraph
from libcore.identification import Movement

MAX_EDGES_PER_PAIR = 15_000
"""More are neither legible nor quick to redraw; enough for all edges between two layers of 122 features."""


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
    moved = graph.movements.get(layer)
    return {
        "name": layer,
        "short": short_layer_names(graph.node_layers)[layer].replace("\n", " "),
        "constant": basis.has_constant,
        "labels": labels,
        "communities": communities,
        "importance": rounded(importance),
    } | ({} if moved is None else embedded_movements(moved))


def embedded_movements(moved: Movement) -> Embedded:
    """How far each feature moves by rounding; and with which others those are identified that move too far."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(moved.group.tolist()):
        members.setdefault(group, []).append(index)
    unsure = [index for index, identified in enumerate(moved.identified.tolist()) if not identified]
    together, groups = moved.identified_in_group.tolist(), moved.group.tolist()
    return {
        "moved": rounded(moved.alone, 2),
        "unsure": {
            index: [other for other in members[groups[index]] if other != index] if together[index] else []
            for index in unsure
        },
    }


def embedded_communities(table: FeatureTable) -> list[Embedded]:
    """Every community of two or more features, the largest first; its colour is null where it has none of its own."""
    sizes = community_sizes(table)
    return [
        {
            "number": number,
            "size": sizes[number],
            "colour": None if look == SMALLER else look.colour,
            "hollow": look.hollow,
        }
        for number, look in community_looks(table).items()
    ]


def embedded_pair(
    graph: InteractionGraph, layer: str, shown_edges: dict[str, int], signed: SignedEdges | None = None
) -> Embedded:
    """Edges from one node layer to the next, strongest first; those of constant features apart and all of them.

    With `signed`, each edge's mean attribution and slope, and for every target feature the sum of magnitudes of all
    mean attributions that go to it, of which a share is taken.
    """
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
    pair: Embedded = {
        "shown": shown_edges[layer],
        "total": graph.variable_edges(layer).numel(),
        "edges": strongest(variable, MAX_EDGES_PER_PAIR, layer, signed),
        "constantEdges": strongest(of_constants, of_constants.numel(), layer, signed),
    }
    if signed is not None:
        pair |= {"input": rounded(signed.mean.abs().sum(1), 4), "averaged": signed.n_examples}
    return pair


def strongest(
    strengths: Float[Tensor, "feature_out feature_in"], most: int, layer: str, signed: SignedEdges | None = None
) -> Embedded:
    """The `most` strongest edges above zero, strongest first, as parallel lists; equal ones in row-major order."""
    refuse_non_finite(strengths, f"edges/{layer}")
    values, order = strengths.flatten().sort(descending=True, stable=True)
    n_kept = min(most, int((values > 0).sum()))
    kept = order[:n_kept]
    found: Embedded = {
        "sources": (kept % strengths.shape[1]).tolist(),
        "targets": (kept // strengths.shape[1]).tolist(),
        "strengths": rounded(values[:n_kept]),
    }
    if signed is not None:
        refuse_non_finite(torch.stack([signed.mean, signed.slope]), f"mean attributions of {layer}")
        found |= {
            "means": rounded(signed.mean.flatten()[kept], 4),
            "slopes": rounded(signed.slope.flatten()[kept], 3),
        }
    return found


def rounded(values: Float[Tensor, " n"], digits: int = 6) -> list[float]:
    """Six significant digits: what the page shows or draws, at a third of the size of all digits."""
    return [float(f"{value:.{digits}g}") for value in values.tolist()]


def refuse_non_finite(values: Float[Tensor, ...], name: str) -> None:
    """JSON has no infinity, and a page that quietly left such an edge out would mislead."""
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} holds a number that is not finite; expected finite numbers only")
