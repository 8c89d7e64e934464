"""Correlations of features of two bases, in closed form, against those of the features themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from experiments.pages.correlations import check_same_activations, feature_correlations
from experiments.pages.run_data import principal_matches
from libcore.basis import Basis
from libcore.eigen import RELATIVE
from libcore.graph import InteractionGraph
from libcore.layer_by_layer import principal_basis
from libcore.statistics import statistics_of

D, N = 5, 400


def activations(has_constant: bool) -> Tensor:
    generator = Generator().manual_seed(3)
    mixing = torch.randn(D, D, generator=generator, dtype=torch.float64)
    found = torch.randn(N, D, generator=generator, dtype=torch.float64) @ mixing + 3.0
    if has_constant:
        found[:, -1] = 1.0
    return found


def basis_of(k: int, seed: int, has_constant: bool) -> Basis:
    """Features with means far from zero, the constant first where there is one."""
    matrix = torch.randn(D, k, generator=Generator().manual_seed(seed), dtype=torch.float64)
    if has_constant:
        matrix[:, 0] = torch.eye(D, dtype=torch.float64)[-1]
    return Basis(matrix, torch.linalg.pinv(matrix), torch.ones(k), has_constant)


@pytest.mark.parametrize("has_constant", [True, False])
def test_equals_the_correlation_of_the_features(has_constant: bool) -> None:
    data = activations(has_constant)
    left, right = basis_of(4, 1, has_constant), basis_of(3, 2, has_constant)
    found = feature_correlations(statistics_of(data, has_constant), left, right)
    first = int(has_constant)
    one, other = ((data @ basis.to_basis)[:, first:].numpy() for basis in (left, right))
    expected = np.corrcoef(one, other, rowvar=False)[: one.shape[1], one.shape[1] :]
    np.testing.assert_allclose(found[first:, first:], expected, atol=1e-12)
    if has_constant:
        assert found[0].tolist() == [0.0] * 3, "the constant correlates with nothing"
        assert found[:, 0].tolist() == [0.0] * 4


def test_a_turned_and_scaled_feature_is_the_same() -> None:
    data, left = activations(True), basis_of(4, 1, True)
    flipped = replace(left, to_basis=left.to_basis[:, [0, 2, 1, 3]] * torch.tensor([1.0, -2.0, 3.0, 0.5]))
    found = feature_correlations(statistics_of(data, True), left, flipped)
    for feature, other, sign in ((1, 2, 1.0), (2, 1, -1.0), (3, 3, 1.0)):
        assert found[feature, other].item() == pytest.approx(sign)


def test_a_basis_of_other_activations_is_refused() -> None:
    data, left = activations(True), basis_of(4, 1, True)
    wide = Basis(torch.zeros(7, 2), torch.zeros(2, 7), torch.ones(2), True)
    with pytest.raises(ValueError, match="a basis of 7 coordinates for activations of 5"):
        feature_correlations(statistics_of(data, True), left, wide)


def test_graphs_of_other_layers_or_activations_are_refused_in_one_line() -> None:
    data = activations(True)
    graph = InteractionGraph(("a", "b"), {"a": statistics_of(data, True), "b": statistics_of(2 * data, False)}, {}, {})
    check_same_activations(graph, graph)
    with pytest.raises(ValueError, match=r"node layers \['a', 'b'\] and \['a', 'c'\]; expected the same"):
        check_same_activations(graph, replace(graph, node_layers=("a", "c")))
    other = replace(graph, statistics=graph.statistics | {"b": statistics_of(2 * data + 1e-3, False)})
    with pytest.raises(ValueError, match=r"b: means of the activations are .* expected one model on the same examples"):
        check_same_activations(graph, other)
    narrower = replace(graph, statistics=graph.statistics | {"b": statistics_of(data[:, :3], False)})
    with pytest.raises(ValueError, match="b: 5 and 3 coordinates"):
        check_same_activations(graph, narrower)


def test_a_page_names_the_principal_components_that_a_feature_is_made_of() -> None:
    data = activations(True)
    statistics = statistics_of(data, True)
    components = principal_basis(statistics, True, RELATIVE, torch.float64)
    mixed = components.to_basis[:, [0, 3, 1, 2]].clone()
    deviation = (data @ components.to_basis).std(0, correction=0)
    mixed[:, 3] = 3 * components.to_basis[:, 2] / deviation[2] - 4 * components.to_basis[:, 4] / deviation[4]
    basis = Basis(mixed, torch.linalg.pinv(mixed), torch.ones(4), True)
    graph = InteractionGraph(("a",), {"a": statistics}, {"a": basis}, {}, {"method": "lib"})
    assert principal_matches(graph, "a") == [[], [(3, 1.0)], [(1, 1.0)], [(4, -0.8), (2, 0.6)]]
    assert principal_matches(replace(graph, metadata={"method": "pca"}), "a") == []
