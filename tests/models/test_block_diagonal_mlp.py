"""Known ground truth: LIB finds independent blocks again behind rotations, where variance says nothing of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from libcore.ablation import unablated_score
from libcore.graph import InteractionGraph, interaction_edges
from libcore.methods import METHODS, FitSettings
from libcore.modularity import find_communities
from libcore.statistics import chain_statistics, statistics_of
from models.block_diagonal_mlp.data import combinations, isotropic_points, n_combinations
from models.block_diagonal_mlp.model import (
    Architecture,
    analysed,
    block_shares,
    chain_of,
    initial_weights,
    load_weights,
    node_layers,
    weight_shapes,
)
from models.weights import CheckpointError

CPU = torch.device("cpu")
INDEPENDENT = Architecture()
CORRELATED = replace(INDEPENDENT, correlation=0.5)
BUDGET = 2**26
SEEDS = (0, 1, 2, 3, 4)


@cache
def graph_of(
    architecture: Architecture, seed: int, method: str, dtype: torch.dtype = torch.float64
) -> InteractionGraph:
    model = analysed(initial_weights(architecture, seed), architecture, CPU)
    chain, inputs = model.chain(dtype), model.train.inputs
    statistics = chain_statistics(chain, inputs, BUDGET)
    bases = METHODS[method](chain, inputs, statistics, FitSettings(memory_budget=BUDGET))
    edges = interaction_edges(chain, inputs, bases, memory_budget=BUDGET)
    return InteractionGraph(chain.node_layers, statistics, bases, edges)


def variable_shares(graph: InteractionGraph, architecture: Architecture, seed: int, layer: str) -> Tensor:
    """Block shares of the features that are not the constant."""
    basis = graph.bases[layer]
    shares = block_shares(initial_weights(architecture, seed), architecture, layer, basis)
    return shares[int(basis.has_constant) :]


def between_blocks(graph: InteractionGraph, architecture: Architecture, seed: int, layer: str) -> float:
    """Largest edge between features of different blocks, relative to the largest edge of the layer pair."""
    next_layer = graph.node_layers[graph.node_layers.index(layer) + 1]
    block, next_block = (variable_shares(graph, architecture, seed, name).argmax(1) for name in (layer, next_layer))
    edges = graph.variable_edges(layer)
    return (edges[next_block[:, None] != block[None, :]].max() / edges.max()).item()


def communities_are_blocks(graph: InteractionGraph, architecture: Architecture, seed: int, weight: str) -> bool:
    """Whether every feature of all layers is in the community of its block, and no community has two blocks."""
    smallest = {layer: 1e-9 * graph.variable_edges(layer).max().item() for layer, _ in graph.pairs()}
    communities = find_communities(graph, weight, smallest)  # pyright: ignore[reportArgumentType]
    pairs = set()
    for layer in graph.node_layers:
        block = variable_shares(graph, architecture, seed, layer).argmax(1).tolist()
        pairs |= set(zip(block, communities.membership[layer][-len(block) :], strict=True))
    return len(pairs) == communities.count == architecture.n_blocks


@pytest.mark.parametrize("seed", SEEDS)
def test_lib_has_no_edges_between_blocks(seed: int) -> None:
    graph = graph_of(INDEPENDENT, seed, "lib")
    for layer, _ in graph.pairs():
        assert between_blocks(graph, INDEPENDENT, seed, layer) < 1e-10, layer


@pytest.mark.parametrize("seed", SEEDS)
def test_every_lib_feature_lies_in_one_block(seed: int) -> None:
    """As many features as neurons, and of every block as many as it has neurons."""
    graph = graph_of(INDEPENDENT, seed, "lib")
    for layer in graph.node_layers:
        share, block = variable_shares(graph, INDEPENDENT, seed, layer).max(1)
        assert share.min() > 1 - 1e-9, layer
        assert torch.bincount(block).tolist() == [4] * 4, layer


@pytest.mark.parametrize("weight", ["sqrt", "log"])
@pytest.mark.parametrize("seed", SEEDS)
def test_communities_of_lib_are_the_blocks(seed: int, weight: str) -> None:
    """Square-root weights are the harder ones.

    At resolution 1, splitting a block in halves pays if it cuts under 1/(2 n_blocks) of its edge weight: with
    square-root weights that is so for about one in fifty seeds, with log-scaled weights for none of 200.
    """
    assert communities_are_blocks(graph_of(INDEPENDENT, seed, "lib"), INDEPENDENT, seed, weight)


@pytest.mark.parametrize("seed", SEEDS)
def test_variance_finds_no_blocks_at_the_input(seed: int) -> None:
    graph = graph_of(INDEPENDENT, seed, "pca")
    assert (variable_shares(graph, INDEPENDENT, seed, "layers.0").max(1).values < 0.9).sum() > 12
    assert between_blocks(graph, INDEPENDENT, seed, "layers.0") > 0.01
    assert not communities_are_blocks(graph, INDEPENDENT, seed, "sqrt")
    assert not communities_are_blocks(graph, INDEPENDENT, seed, "log")


@pytest.mark.parametrize("method", ["svd", "neuron", "random"])
def test_nor_do_the_other_baselines(method: str) -> None:
    graph = graph_of(INDEPENDENT, 0, method)
    assert between_blocks(graph, INDEPENDENT, 0, "layers.0") > 0.01
    assert not communities_are_blocks(graph, INDEPENDENT, 0, "sqrt")


def test_other_sizes() -> None:
    architecture = Architecture(n_blocks=3, block_width=2, n_layers=2, n_outputs_per_block=3, points_per_block=5)
    graph = graph_of(architecture, 0, "lib")
    assert [graph.bases[layer].n_features for layer in graph.node_layers] == [7, 7, 9]
    assert all(between_blocks(graph, architecture, 0, layer) < 1e-10 for layer, _ in graph.pairs())


def test_correlated_blocks_still_give_a_graph() -> None:
    """No promise but that it can be measured: every edge is a number, and independence is seen to be gone."""
    graph = graph_of(CORRELATED, 0, "lib")
    for layer, _ in graph.pairs():
        assert torch.isfinite(graph.edges[layer]).all()
    assert between_blocks(graph, CORRELATED, 0, "layers.0") > 1e-10


@pytest.mark.parametrize("architecture", [INDEPENDENT, CORRELATED])
def test_composition_of_sections_is_the_model(architecture: Architecture) -> None:
    weights = initial_weights(architecture, 1)
    chain = chain_of(weights, architecture, torch.float64, CPU)
    plain = inputs = combinations(weights["points"], architecture.correlation)
    for index, layer in enumerate(node_layers(architecture)[:-1]):
        activation = chain.activation(inputs, index)
        assert activation.shape == (len(inputs), 1, 17)
        assert (activation[..., -1] == 1).all(), layer
        rotated = plain @ weights[f"rotations.{index}"]
        torch.testing.assert_close(activation[:, 0, :-1], rotated, rtol=1e-12, atol=1e-12)
        pre_activation = plain @ weights[f"layers.{index}.W"] + weights[f"layers.{index}.b"]
        plain = pre_activation.relu()
    torch.testing.assert_close(chain.activation(inputs, 3)[:, 0], pre_activation, rtol=1e-12, atol=1e-12)
    assert not chain.has_constant("output")


def test_a_block_depends_on_its_own_inputs_alone(generator: torch.Generator) -> None:
    weights = initial_weights(INDEPENDENT, 0)
    chain = chain_of(weights, INDEPENDENT, torch.float64, CPU)
    inputs = combinations(weights["points"], 0.0)[:50]
    changed = inputs.clone()
    changed[:, 4:8] += torch.randn(50, 4, generator=generator, dtype=torch.float64)
    moved = (chain.activation(changed, 3) - chain.activation(inputs, 3)).abs().amax((0, 1)).unflatten(0, (4, 4)).amax(1)
    assert moved[1] > 0.1
    assert moved[[0, 2, 3]].max() < 1e-12


def test_neurons_of_hidden_layers_are_hidden() -> None:
    weights = initial_weights(INDEPENDENT, 0)
    for index in range(INDEPENDENT.n_layers):
        rotation = weights[f"rotations.{index}"]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-13)
        assert rotation.square().max() < 0.9


def test_inputs_are_all_combinations_isotropic_and_independent() -> None:
    weights = initial_weights(INDEPENDENT, 2)
    inputs = combinations(weights["points"], 0.0)
    assert inputs.shape == (6**4, 16)
    assert len(torch.unique(inputs, dim=0)) == n_combinations(4, 6, 0.0) == 6**4
    moments = statistics_of(inputs, has_constant=False)
    torch.testing.assert_close(moments.mean, torch.zeros(16, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(moments.gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-13)
    # Independent in every moment, not only the second.
    first, second = inputs[:, :4].exp(), inputs[:, 8:12].exp()
    torch.testing.assert_close(first.T @ second / 6**4, first.mean(0)[:, None] * second.mean(0), rtol=1e-12, atol=0)


def test_a_part_of_the_data_is_drawn_from_all_of_them() -> None:
    """The first combinations in order have the first blocks at one point; a part that is drawn varies in all blocks."""
    model = analysed(initial_weights(Architecture(), 0), Architecture(), torch.device("cpu"))
    whole, part = model.fit_inputs(None), model.fit_inputs(100)
    assert torch.equal(whole, model.train.inputs)
    assert torch.linalg.matrix_rank(whole[:100] - whole[:100].mean(0)) < whole.shape[1]
    assert torch.linalg.matrix_rank(part - part.mean(0)) == whole.shape[1]
    halves = torch.cat([model.fit_inputs(None, "first"), model.fit_inputs(None, "second")])
    assert len(torch.unique(halves, dim=0)) == len(whole)


@pytest.mark.parametrize("correlation", [0.1, 0.5, 0.9])
def test_correlated_rows_have_their_share_and_leave_each_block_as_it_was(correlation: float) -> None:
    points = isotropic_points(3, 5, 2, torch.Generator().manual_seed(0))
    inputs = combinations(points, correlation)
    assert len(inputs) == n_combinations(3, 5, correlation)
    equal = torch.cat(list(points), dim=1)
    share = sum((inputs == row).all(1).sum().item() for row in equal) / len(inputs)
    assert share == pytest.approx(correlation, abs=0.02)
    gram = statistics_of(inputs, has_constant=False).gram
    torch.testing.assert_close(gram[2:4, 2:4], torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-13)
    assert gram[:2, 2:].abs().max() > 0.05


@pytest.mark.parametrize("correlation", [-0.1, 1.0])
def test_refuses_a_correlation_that_is_no_share(correlation: float) -> None:
    with pytest.raises(ValueError, match="correlation"):
        Architecture(correlation=correlation)


def test_refuses_points_that_cannot_be_isotropic() -> None:
    with pytest.raises(ValueError, match="expected at least 5"):
        initial_weights(Architecture(points_per_block=4), 0)


def test_refuses_points_whose_hidden_activations_have_fewer_features_than_neurons() -> None:
    with pytest.raises(ValueError, match=r"33 points per block of width 32: .* expected more points"):
        initial_weights(Architecture(n_blocks=2, block_width=32, points_per_block=33), 0)


def test_the_models_own_score_is_one_and_another_output_scores_less() -> None:
    model = analysed(initial_weights(INDEPENDENT, 0), INDEPENDENT, CPU)
    chain = model.chain(torch.float64)
    assert unablated_score(chain, model.test, BUDGET) == 1.0
    assert unablated_score(model.chain(torch.float32), model.test, BUDGET) == pytest.approx(1.0, abs=0.01)
    outputs = chain.activation(model.test.inputs, 3)
    # One block of four loses every agreement.
    outputs[..., :4] *= -1
    assert model.test.score_sum(outputs, 0, len(outputs)) / len(outputs) == pytest.approx(0.75)
    assert model.test.score_sum(outputs[100:120], 100, 120) == pytest.approx(15.0)


def test_labels_name_the_block() -> None:
    weights = initial_weights(INDEPENDENT, 0)
    model = analysed(weights, INDEPENDENT, CPU)
    chain, bases = model.chain(torch.float64), graph_of(INDEPENDENT, 0, "lib").bases
    labels = model.label_features(chain, bases)
    for layer in chain.node_layers:
        block = variable_shares(graph_of(INDEPENDENT, 0, "lib"), INDEPENDENT, 0, layer).argmax(1).tolist()
        constant = ["constant"] if chain.has_constant(layer) else []
        assert labels[layer] == constant + [f"block {number}" for number in block], layer
    mixed = model.label_features(chain, graph_of(INDEPENDENT, 0, "svd").bases)["layers.0"]
    assert mixed[0] == "constant"
    assert sum("%)" in label for label in mixed) > 12


def test_labels_of_fewer_node_layers() -> None:
    model = analysed(initial_weights(INDEPENDENT, 0), INDEPENDENT, CPU)
    chain = model.chain(torch.float64).restricted_to(["layers.1", "output"])
    labels = model.label_features(chain, graph_of(INDEPENDENT, 0, "lib").bases)
    assert list(labels) == ["layers.1", "output"]
    assert labels["output"][5] == "block 1"


def test_float32_is_near_float64() -> None:
    single = graph_of(INDEPENDENT, 0, "lib", torch.float32)
    for layer, _ in single.pairs():
        assert between_blocks(single, INDEPENDENT, 0, layer) < 1e-6, layer


def test_equal_seeds_give_equal_weights_and_files_give_them_back(tmp_path: Path) -> None:
    one, same, other = (initial_weights(INDEPENDENT, seed) for seed in (0, 0, 1))
    assert {name: tuple(weight.shape) for name, weight in one.items()} == weight_shapes(INDEPENDENT)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    save_file(one, tmp_path / "weights.safetensors")
    loaded = load_weights(tmp_path / "weights.safetensors", INDEPENDENT)
    assert all(torch.equal(one[name], loaded[name]) for name in one)
    with pytest.raises(
        CheckpointError, match=r"weight points has another shape; expected \(3, 6, 4\), found \(4, 6, 4\)"
    ):
        load_weights(tmp_path / "weights.safetensors", replace(INDEPENDENT, n_blocks=3))
