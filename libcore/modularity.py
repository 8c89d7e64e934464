"""Communities of the interaction graph by the Leiden algorithm, and how modular it is (METHOD.md 4)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.graph import InteractionGraph

EdgeWeight = Literal["log", "sqrt"]
EDGE_WEIGHTS: tuple[str, ...] = get_args(EdgeWeight)
NO_COMMUNITY = -1


@dataclass(frozen=True)
class Communities:
    """A partition of all features but the constant ones.

    Attributes:
        modularity: score Q of the weighted graph at `resolution`; NaN for a graph without edges.
        membership: by node layer, one entry per kept feature: the community, numbered by size, or `NO_COMMUNITY` for
            the constant and for features without an edge that counts.
        count: communities of two or more features.
    """

    modularity: float
    membership: dict[str, list[int]]
    count: int


def find_communities(
    graph: InteractionGraph,
    weight: EdgeWeight,
    smallest_edges: dict[str, float] | None = None,
    resolution: float = 1.0,
    seed: int = 0,
) -> Communities:
    """Leiden on the whole graph, all layer pairs together.

    `weight="log"` takes `log10(E / E_min)` of the edges above `E_min = smallest_edges[layer]`, the smallest edge that
    the ablation of that layer pair needed; `weight="sqrt"` takes `sqrt(E)` of all edges. Deterministic by `seed`.
    """
    # igraph takes a second to import and brings a plotting library: only this function needs it.
    import igraph

    first_vertex: dict[str, int] = {}
    n_vertices = 0
    for layer in graph.node_layers:
        first_vertex[layer] = n_vertices
        n_vertices += graph.bases[layer].n_features
    pairs: list[Tensor] = []
    weights: list[Tensor] = []
    for layer, next_layer in graph.pairs():
        strength = edge_weights(graph.variable_edges(layer), weight, (smallest_edges or {}).get(layer))
        target, source = torch.nonzero(strength, as_tuple=True)
        weights.append(strength[target, source])
        source = source + first_vertex[layer] + int(graph.bases[layer].has_constant)
        target = target + first_vertex[next_layer] + int(graph.bases[next_layer].has_constant)
        pairs.append(torch.stack([source, target], dim=1))

    # An array, and no list: of twenty million edges that is a gigabyte less.
    network = igraph.Graph(n_vertices, torch.cat(pairs).numpy())
    edge_weight = torch.cat(weights).tolist()
    igraph.set_random_number_generator(random.Random(seed))
    partition = network.community_leiden(
        objective_function="modularity", weights=edge_weight, resolution=resolution, n_iterations=-1
    )
    # igraph's own annotation says int where its documentation and its code take any number.
    score = network.modularity(partition.membership, weights=edge_weight, resolution=resolution)  # pyright: ignore[reportArgumentType]
    numbered, count = number_by_size(partition.membership, network.degree())
    membership = {
        layer: numbered[first_vertex[layer] : first_vertex[layer] + graph.bases[layer].n_features]
        for layer in graph.node_layers
    }
    return Communities(score, membership, count)


def edge_weights(
    edges: Float[Tensor, "feature_out feature_in"], weight: EdgeWeight, smallest: float | None
) -> Float[Tensor, "feature_out feature_in"]:
    """What Leiden sees of each edge; zero is no edge. Raises ValueError for `log` without a smallest edge."""
    if weight == "sqrt":
        return edges.sqrt()
    if smallest is None:
        raise ValueError("edge weight log needs the smallest edge that the ablation needed; expected sqrt without it")
    if smallest <= 0:
        return torch.zeros_like(edges)
    return (edges / smallest).clamp(min=1.0).log10()


def number_by_size(membership: list[int], degree: list[int]) -> tuple[list[int], int]:
    """Communities renumbered from the largest; vertices without edges are in none. Also how many have two or more."""
    sizes: dict[int, int] = {}
    for community, edges in zip(membership, degree, strict=True):
        if edges:
            sizes[community] = sizes.get(community, 0) + 1
    order = sorted(sizes, key=lambda community: (-sizes[community], community))
    number = {community: index for index, community in enumerate(order)}
    numbered = [
        number[community] if edges else NO_COMMUNITY for community, edges in zip(membership, degree, strict=True)
    ]
    return numbered, sum(size >= 2 for size in sizes.values())
