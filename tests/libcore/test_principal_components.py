"""PCA and whitening (eq. 2-3), and the baseline's basis."""

from __future__ import annotations

import pytest
import slow_reference
import torch
from tiny_models import largest_difference, random, random_activation

from libcore.basis import Basis, identity_basis
from libcore.eigen import Truncation
from libcore.layer_by_layer import principal_basis
from libcore.principal_components import PrincipalComponents, principal_components
from libcore.statistics import statistics_of

CUT = Truncation("absolute", 1e-12)


def components_of(activation: torch.Tensor, truncation: Truncation = CUT) -> PrincipalComponents:
    return principal_components(statistics_of(activation.flatten(0, 1), True), True, truncation, torch.float64)


def in_a_subspace(generator: torch.Generator, n: int, d: int, rank: int) -> torch.Tensor:
    """Activations that vary in `rank` directions around a mean outside their span."""
    varying = random(generator, n, 1, rank) @ random(generator, rank, d) + 3 * random(generator, d)
    varying[..., -1] = 1.0
    return varying


def test_components_are_eq_2(generator: torch.Generator) -> None:
    activation = random_activation(generator, 8, 2, 5)
    components, reference = components_of(activation), slow_reference.principal_basis(activation, 1e-12)
    assert largest_difference(components.variance, reference.importance) < 1e-12
    assert largest_difference(components.project.abs(), reference.to_basis.abs()) < 1e-11
    assert largest_difference(components.restore.abs(), reference.from_basis.abs()) < 1e-11


@pytest.mark.parametrize("rank", [4, 2])
def test_projection_and_restoration_give_the_activations_back(generator: torch.Generator, rank: int) -> None:
    activation = in_a_subspace(generator, 12, 5, rank)
    components = components_of(activation)
    assert components.project.shape == (5, rank + 1)
    assert len(components.dropped_variance) == 4 - rank
    assert largest_difference(activation @ components.project @ components.restore, activation) < 1e-12
    assert largest_difference(components.restore @ components.project, torch.eye(rank + 1, dtype=torch.float64)) < 1e-12


def test_gram_of_components_is_their_variance(generator: torch.Generator) -> None:
    activation = random_activation(generator, 12, 2, 5)
    components = components_of(activation)
    projected = (activation @ components.project).flatten(0, 1)
    gram = projected.T @ projected / len(projected)
    assert largest_difference(gram, torch.diag(components.variance)) < 1e-12
    assert (components.variance[1:-1] >= components.variance[2:]).all()


def test_whitened_gram_is_the_identity(generator: torch.Generator) -> None:
    activation = random_activation(generator, 12, 2, 5)
    whiten, unwhiten = components_of(activation).whitened()
    white = (activation @ whiten).flatten(0, 1)
    assert largest_difference(white.T @ white / len(white), torch.eye(5, dtype=torch.float64)) < 1e-11
    assert largest_difference(unwhiten @ whiten, torch.eye(5, dtype=torch.float64)) < 1e-11


def test_constant_feature_is_feature_zero_and_orthogonal_to_the_others(generator: torch.Generator) -> None:
    activation = random_activation(generator, 12, 2, 5)
    features = (activation @ components_of(activation).project).flatten(0, 1)
    assert torch.equal(features[:, 0], torch.ones(24, dtype=torch.float64))
    assert (features[:, 0] @ features[:, 1:]).abs().max() < 1e-12 * features.abs().sum()


def test_truncation_drops_the_small_variances_and_reports_them(generator: torch.Generator) -> None:
    activation = random_activation(generator, 12, 2, 5)
    whole = components_of(activation)
    cut = (whole.variance[2] * whole.variance[3]).sqrt().item()
    truncated = components_of(activation, Truncation("absolute", cut))
    assert torch.equal(truncated.variance, whole.variance[:3])
    assert torch.equal(truncated.dropped_variance, whole.variance[3:])
    assert torch.equal(truncated.project, whole.project[:, :3])


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_relative_truncation_follows_the_largest_variance_and_not_the_constant(
    generator: torch.Generator, scale: float
) -> None:
    activation = random_activation(generator, 12, 2, 5)
    variance = components_of(activation).variance[1:]
    threshold = ((variance[1] * variance[2]).sqrt() / variance[0]).item()
    activation[..., :-1] *= scale
    assert components_of(activation, Truncation("relative", threshold)).project.shape == (5, 3)


def test_a_layer_that_does_not_vary_keeps_the_constant_alone() -> None:
    activation = torch.tensor([[[2.0, 3.0, 1.0]]], dtype=torch.float64).expand(4, 1, 3)
    components = components_of(activation, Truncation())
    assert components.project.shape == (3, 1)
    assert torch.equal(activation @ components.project @ components.restore, activation)


def test_without_a_constant_coordinate_the_components_only_rotate(generator: torch.Generator) -> None:
    activation = random(generator, 20, 1, 4)
    statistics = statistics_of(activation.flatten(0, 1), has_constant=False)
    components = principal_components(statistics, False, CUT, torch.float64)
    assert components.project.shape == (4, 4)
    assert (
        largest_difference(components.project.T @ statistics.gram @ components.project, torch.diag(components.variance))
        < 1e-12
    )
    assert largest_difference(activation @ components.project @ components.restore, activation) < 1e-12


def test_pca_baseline_sorts_by_variance_and_lists_the_dropped_ones_last(generator: torch.Generator) -> None:
    activation = in_a_subspace(generator, 12, 5, rank=2)
    basis = principal_basis(statistics_of(activation.flatten(0, 1), True), True, CUT, torch.float64)
    assert basis.n_features == 3
    assert basis.has_constant
    assert len(basis.importance) == 5
    assert basis.importance[0] == 1.0
    assert (basis.importance[1:-1] >= basis.importance[2:]).all()
    assert (basis.importance[3:] <= 1e-12).all()
    variance = basis.features(activation).flatten(0, 1).var(0, correction=0)
    assert largest_difference(variance[1:], basis.importance[1:3]) < 1e-12


def test_keeping_the_first_features_zeroes_the_others(generator: torch.Generator) -> None:
    activation = random_activation(generator, 6, 2, 4)
    basis = principal_basis(statistics_of(activation.flatten(0, 1), True), True, CUT, torch.float64)
    for kept in range(basis.n_features + 1):
        features = basis.features(activation)
        features[..., kept:] = 0
        assert torch.allclose(basis.keep_first(activation, kept), features @ basis.from_basis, atol=1e-12)
    mean = activation.flatten(0, 1).mean(0)
    assert largest_difference(basis.keep_first(activation, 1), mean.expand_as(activation)) < 1e-12


def test_identity_basis_is_the_neurons_in_their_order() -> None:
    variance = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    basis = identity_basis(variance, has_constant=False)
    assert torch.equal(basis.to_basis, torch.eye(3, dtype=torch.float64))
    assert torch.equal(basis.from_basis, torch.eye(3, dtype=torch.float64))
    assert torch.equal(basis.importance, variance)
    assert basis.to_basis.data_ptr() != basis.from_basis.data_ptr()


def test_a_basis_moves_to_another_dtype_as_a_copy(generator: torch.Generator) -> None:
    basis = Basis(random(generator, 3, 2), random(generator, 2, 3), random(generator, 3), True)
    moved = basis.to(dtype=torch.float32)
    assert {moved.to_basis.dtype, moved.from_basis.dtype, moved.importance.dtype} == {torch.float32}
    assert torch.equal(moved.to_basis, basis.to_basis.float())
    assert moved.has_constant
    assert basis.to_basis.dtype == torch.float64
