"""Communities: planted ones are found, constants belong to none, the score is its definition."""

from __future__ import annotations

from math import isnan, log10

import pytest
import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.graph import InteractionGraph
from libcore.modularity import NO_COMMUNITY, Communities, edge_weights, find_communities
from libcore.statistics import LayerStatistics

LAYERS = ("a", "b", "output")


def graph_of(edges: dict[str, Tensor]) -> InteractionGraph:
    """Layers `a` and `b` with a constant feature, `output` without."""
    widths = (edges["a"].shape[1], edges["b"].shape[1], len(edges["b"]))
    bases, statistics = {}, {}
    for layer, width in zip(LAYERS, widths, strict=True):
        identity = torch.eye(width, dtype=torch.float64)
        bases[layer] = Basis(identity, identity, identity.diagonal(), layer != "output")
        statistics[layer] = LayerStatistics(identity[0], identity, 1)
    return InteractionGraph(LAYERS, statistics, bases, edges)


def planted(
    generator: torch.Generator, within: float = 1.0, between: float = 1e-4
) -> tuple[InteractionGraph, dict[str, list[int]]]:
    """Blocks of features 0, 1, 2 over all layers, sizes differing, the constant feature tied to everything."""
    blocks = {"a": [0] * 5 + [1] * 4 + [2] * 2, "b": [0] * 5 + [1] * 3 + [2] * 2, "output": [0] * 4 + [1] * 3 + [2] * 2}
    edges = {}
    for layer, next_layer in (("a", "b"), ("b", "output")):
        same = torch.tensor(blocks[next_layer])[:, None] == torch.tensor(blocks[layer])[None, :]
        noise = 0.5 + torch.rand(same.shape, generator=generator, dtype=torch.float64)
        variable = noise * torch.where(same, within, between)
        constant_column = torch.full((len(variable), 1), 50.0, dtype=torch.float64)
        whole = torch.cat([constant_column, variable], dim=1)
        if next_layer != "output":
            whole = torch.cat([torch.full((1, whole.shape[1]), 50.0, dtype=torch.float64), whole])
        edges[layer] = whole
    expected = {layer: ([NO_COMMUNITY] if layer != "output" else []) + block for layer, block in blocks.items()}
    return graph_of(edges), expected


def modularity_by_hand(
    graph: InteractionGraph, communities: Communities, smallest: float | None, resolution: float
) -> float:
    """`sum_ij (A_ij - γ k_i k_j / 2m) δ(c_i, c_j) / 2m` over every pair of vertices."""
    vertices = [(layer, j) for layer in LAYERS for j in range(graph.bases[layer].n_features)]
    number = {vertex: index for index, vertex in enumerate(vertices)}
    adjacency = torch.zeros(len(vertices), len(vertices), dtype=torch.float64)
    for layer, next_layer in graph.pairs():
        for i in range(int(graph.bases[next_layer].has_constant), graph.bases[next_layer].n_features):
            for j in range(1, graph.bases[layer].n_features):
                strength = graph.edges[layer][i, j].item()
                weight = strength**0.5
                if smallest is not None:
                    weight = log10(strength / smallest) if strength > smallest else 0.0
                adjacency[number[layer, j], number[next_layer, i]] = weight
    adjacency = adjacency + adjacency.T
    degree, total = adjacency.sum(0), adjacency.sum()
    score = 0.0
    for u, (layer_u, j_u) in enumerate(vertices):
        for v, (layer_v, j_v) in enumerate(vertices):
            if communities.membership[layer_u][j_u] == communities.membership[layer_v][j_v] != NO_COMMUNITY:
                score += ((adjacency[u, v] - resolution * degree[u] * degree[v] / total) / total).item()
    return score


@pytest.mark.parametrize("weight", ["sqrt", "log"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_communities_are_found(generator: torch.Generator, weight: str, seed: int) -> None:
    graph, expected = planted(generator)
    smallest = {"a": 1e-3, "b": 1e-3}
    communities = find_communities(graph, weight, smallest, seed=seed)  # pyright: ignore[reportArgumentType]
    assert communities.membership == expected
    assert communities.count == 3


@pytest.mark.parametrize("resolution", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("smallest", [None, 0.7])
def test_modularity_is_its_definition(generator: torch.Generator, smallest: float | None, resolution: float) -> None:
    graph, _ = planted(generator, between=0.3)
    limits = None if smallest is None else {"a": smallest, "b": smallest}
    communities = find_communities(graph, "sqrt" if smallest is None else "log", limits, resolution)
    expected = modularity_by_hand(graph, communities, smallest, resolution)
    assert communities.modularity == pytest.approx(expected, abs=1e-9)


def test_modular_graphs_score_higher_than_shuffled_ones(generator: torch.Generator) -> None:
    graph, _ = planted(generator)
    shuffled = {
        layer: edges.flatten()[torch.randperm(edges.numel(), generator=generator)].reshape(edges.shape)
        for layer, edges in graph.edges.items()
    }
    modular = find_communities(graph, "sqrt").modularity
    assert modular > 0.5
    assert modular > find_communities(graph_of(shuffled), "sqrt").modularity + 0.1


def test_equal_seeds_give_equal_communities(generator: torch.Generator) -> None:
    graph, _ = planted(generator, between=0.8)
    assert find_communities(graph, "sqrt", seed=3) == find_communities(graph, "sqrt", seed=3)


def test_edges_of_the_constant_do_not_count(generator: torch.Generator) -> None:
    graph, _ = planted(generator)
    without = {layer: edges.clone() for layer, edges in graph.edges.items()}
    without["a"][0], without["a"][:, 0], without["b"][:, 0] = 0.0, 0.0, 0.0
    assert find_communities(graph, "sqrt") == find_communities(graph_of(without), "sqrt")


def test_features_without_an_edge_that_counts_are_in_no_community(generator: torch.Generator) -> None:
    graph, expected = planted(generator)
    graph.edges["a"][:, 3] = 0.0
    membership = find_communities(graph, "sqrt").membership
    assert membership["a"][3] == NO_COMMUNITY
    assert membership["a"][:3] + membership["a"][4:] == expected["a"][:3] + expected["a"][4:]


def test_a_graph_without_edges_has_no_modularity() -> None:
    zeros = {"a": torch.zeros(3, 3, dtype=torch.float64), "b": torch.zeros(2, 3, dtype=torch.float64)}
    communities = find_communities(graph_of(zeros), "sqrt")
    assert isnan(communities.modularity)
    assert communities.count == 0
    assert communities.membership == {"a": [-1] * 3, "b": [-1] * 3, "output": [-1] * 2}


def test_only_communities_of_two_or_more_features_are_counted(generator: torch.Generator) -> None:
    """At a high resolution every feature is alone: no communities, though every feature has edges."""
    graph, _ = planted(generator)
    assert find_communities(graph, "sqrt", resolution=1000.0).count == 0


def test_log_weights_count_decades_above_the_smallest_edge() -> None:
    edges = torch.tensor([[1e-3, 1e-2], [1.0, 1e-5]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(edge_weights(edges, "log", 1e-3), expected, atol=1e-12)
    assert torch.equal(edge_weights(edges, "log", 0.0), torch.zeros(2, 2, dtype=torch.float64))


def test_sqrt_weights_are_the_strengths_before_squaring() -> None:
    edges = torch.tensor([[4.0, 0.0], [9.0, 0.25]], dtype=torch.float64)
    assert torch.equal(edge_weights(edges, "sqrt", None), torch.tensor([[2.0, 0.0], [3.0, 0.5]], dtype=torch.float64))


def test_log_weights_need_the_smallest_edge(generator: torch.Generator) -> None:
    graph, _ = planted(generator)
    with pytest.raises(ValueError, match="smallest edge"):
        find_communities(graph, "log", {"a": 1e-3})
