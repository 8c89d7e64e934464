"""The interaction graph and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import AMPLE, FITTED, random_activation, random_chain
from torch import Generator

from libcore.graph import InteractionGraph, interaction_edges
from libcore.methods import METHODS, FitSettings
from libcore.statistics import chain_statistics


def graph_of(generator: Generator, method: str = "lib") -> InteractionGraph:
    chain, inputs = random_chain(generator), random_activation(generator, 6, 3, 4)
    statistics = chain_statistics(chain, inputs, AMPLE)
    bases = METHODS[method](chain, inputs, statistics, FitSettings())
    strengths = interaction_edges(chain, inputs, bases)
    return InteractionGraph(
        chain.node_layers, statistics, bases, strengths, {"method": method, "config": '{"seed": 0}'}
    )


@pytest.mark.parametrize("method", FITTED)
def test_what_is_loaded_is_what_was_saved_to_the_bit(generator: Generator, tmp_path: Path, method: str) -> None:
    graph = graph_of(generator, method)
    first = graph.node_layers[0]
    graph.statistics[first] = replace(graph.statistics[first], isolated=(1,))
    graph.save(tmp_path / "graph.safetensors")
    loaded = InteractionGraph.load(tmp_path / "graph.safetensors")
    assert loaded.node_layers == graph.node_layers
    assert loaded.metadata == graph.metadata
    assert list(loaded.edges) == list(graph.edges)
    for layer in graph.node_layers:
        basis, moments = graph.bases[layer], graph.statistics[layer]
        assert loaded.bases[layer].has_constant == basis.has_constant
        assert loaded.statistics[layer].count == moments.count
        assert loaded.statistics[layer].isolated == moments.isolated
        pairs = [
            (getattr(loaded.bases[layer], name), getattr(basis, name))
            for name in ("to_basis", "from_basis", "importance")
        ]
        pairs += [(loaded.statistics[layer].mean, moments.mean), (loaded.statistics[layer].gram, moments.gram)]
        pairs += [(loaded.edges[layer], graph.edges[layer])] if layer in graph.edges else []
        for found, saved in pairs:
            assert found.dtype == saved.dtype
            assert torch.equal(found, saved)


def test_saving_what_was_loaded_gives_the_same_graph(generator: Generator, tmp_path: Path) -> None:
    graph_of(generator).save(tmp_path / "first")
    InteractionGraph.load(tmp_path / "first").save(tmp_path / "second")
    again = InteractionGraph.load(tmp_path / "second")
    first = InteractionGraph.load(tmp_path / "first")
    assert again.metadata == first.metadata
    assert all(torch.equal(again.edges[layer], first.edges[layer]) for layer in first.edges)
    assert all(torch.equal(again.bases[layer].to_basis, first.bases[layer].to_basis) for layer in first.node_layers)


def test_variable_edges_have_no_constant_row_or_column(generator: Generator) -> None:
    graph = graph_of(generator)
    assert torch.equal(graph.variable_edges("before"), graph.edges["before"][1:, 1:])
    assert torch.equal(graph.variable_edges("after"), graph.edges["after"][:, 1:])


def test_pairs_are_the_adjacent_layers(generator: Generator) -> None:
    assert graph_of(generator).pairs() == [("before", "middle"), ("middle", "after"), ("after", "output")]


def test_a_file_without_node_layers_is_refused(tmp_path: Path) -> None:
    save_file({"mean/a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: no node layers"):
        InteractionGraph.load(tmp_path / "other.safetensors")


def test_a_file_without_constant_layers_is_refused(tmp_path: Path) -> None:
    save_file({"mean/a": torch.zeros(2)}, tmp_path / "half.safetensors", metadata={"node_layers": '["a"]'})
    with pytest.raises(ValueError, match=r"half\.safetensors: no constant in the header"):
        InteractionGraph.load(tmp_path / "half.safetensors")


def test_a_file_that_misses_a_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    header = {"node_layers": '["a"]', "constant": "[]", "count": '{"a": 1}'}
    save_file({"mean/a": torch.zeros(2)}, tmp_path / "partial.safetensors", metadata=header)
    with pytest.raises(ValueError, match="gram/a"):
        InteractionGraph.load(tmp_path / "partial.safetensors")
