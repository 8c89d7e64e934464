"""Coordinates that stay features of their own: a normalisation's scale (paper's language models)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import largest_difference, random, random_activation
from torch import Generator

from libcore.basis import Basis
from libcore.eigen import RELATIVE, descending_eigh
from libcore.layer_by_layer import principal_basis
from libcore.methods.lib import lib_basis
from libcore.methods.random import random_basis
from libcore.methods.svd import svd_basis
from libcore.statistics import LayerStatistics, statistics_of

D, ISOLATED = 5, 2


@pytest.fixture
def statistics(generator: Generator) -> LayerStatistics:
    """Of a layer whose coordinate 2 is correlated with all others."""
    moments = statistics_of(random_activation(generator, 200, 1, D).flatten(0, 1), has_constant=True)
    assert moments.gram[ISOLATED, :-1].abs().min() > 1e-2
    return replace(moments, isolated=(ISOLATED,))


def check_one_feature_is_the_coordinate(basis: Basis, statistics: LayerStatistics, centre: float) -> int:
    """Exactly one feature reads the coordinate, and reads nothing else but the constant; which one."""
    reads = basis.to_basis[:-1, 1:]
    (feature,) = torch.nonzero(reads[ISOLATED].abs() > 0).flatten().tolist()
    assert torch.equal(torch.nonzero(reads[:, feature]).flatten(), torch.tensor([ISOLATED]))
    assert torch.equal(torch.nonzero(basis.from_basis[1 + feature]).flatten(), torch.tensor([ISOLATED]))
    assert basis.to_basis[-1, 1 + feature].item() == pytest.approx(-centre * reads[ISOLATED, feature].item())
    return 1 + feature


def test_eigenvectors_of_the_other_coordinates_do_not_see_it(generator: Generator) -> None:
    half = random(generator, 4, 6)
    symmetric = half @ half.T
    values, vectors = descending_eigh(symmetric, (1,))
    others = [0, 2, 3]
    expected_values, expected = descending_eigh(symmetric[others][:, others])
    (column,) = torch.nonzero(vectors[1]).flatten().tolist()
    kept = [c for c in range(4) if c != column]
    assert torch.equal(values, values.sort(descending=True).values)
    assert values[column] == symmetric[1, 1]
    assert largest_difference(values[kept], expected_values) == 0.0
    assert largest_difference(vectors[others][:, kept], expected) == 0.0


def test_lib(generator: Generator, statistics: LayerStatistics) -> None:
    half = random(generator, D, 2 * D)
    gram = half @ half.T
    basis = lib_basis(statistics, gram, RELATIVE, torch.float64)
    feature = check_one_feature_is_the_coordinate(basis, statistics, statistics.mean[ISOLATED].item())
    assert largest_difference(basis.to_basis @ basis.from_basis, torch.eye(D, dtype=torch.float64)) < 1e-12
    # Its importance is what the next layer does with it alone: variance times its entry of the Jacobian Gram.
    expected = statistics.gram[ISOLATED, ISOLATED] * gram[ISOLATED, ISOLATED]
    assert basis.importance[feature].item() == pytest.approx(expected.item())
    assert torch.equal(basis.importance[1:], basis.importance[1:].sort(descending=True).values)


def test_baselines(generator: Generator, statistics: LayerStatistics) -> None:
    mean = statistics.mean[ISOLATED].item()
    check_one_feature_is_the_coordinate(principal_basis(statistics, True, RELATIVE, torch.float64), statistics, mean)
    check_one_feature_is_the_coordinate(svd_basis(statistics, True, RELATIVE, torch.float64), statistics, 0.0)
    drawn = random_basis(statistics, True, RELATIVE, torch.float64, generator)
    check_one_feature_is_the_coordinate(drawn, statistics, mean)


def test_without_isolation_features_mix_it(generator: Generator, statistics: LayerStatistics) -> None:
    basis = principal_basis(replace(statistics, isolated=()), True, RELATIVE, torch.float64)
    assert (basis.to_basis[ISOLATED, 1:].abs() > 1e-3).sum() > 1
