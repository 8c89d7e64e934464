"""The baselines beside PCA: what each one is defined by, and that nothing of an activation is lost."""

from __future__ import annotations

import pytest
import torch
from tiny_models import AMPLE, largest_difference, random, random_activation, random_chain
from torch import Generator, Tensor

from libcore.basis import Basis
from libcore.eigen import RELATIVE, Truncation, fix_signs
from libcore.layer_by_layer import principal_basis
from libcore.methods import METHODS, FitSettings
from libcore.methods.neuron import neuron_basis
from libcore.methods.random import generator_of, haar_rotation, random_basis
from libcore.methods.svd import svd_basis
from libcore.statistics import LayerStatistics, chain_statistics, statistics_of

CUT = Truncation("absolute", 1e-12)
BASELINES = ("pca", "svd", "neuron", "random")


def fitted(name: str, statistics: LayerStatistics, has_constant: bool = True, truncation: Truncation = CUT) -> Basis:
    arguments = (statistics, has_constant, truncation, torch.float64)
    if name == "random":
        return random_basis(*arguments, generator_of("layer", 0))
    return {"pca": principal_basis, "svd": svd_basis, "neuron": neuron_basis}[name](*arguments)


def on_a_manifold(generator: Generator) -> Tensor:
    """Activations of two varying directions, a neuron that does not vary but is not zero, and the constant."""
    activation = random(generator, 30, 1, 2) @ random(generator, 2, 6) + 3 * random(generator, 6)
    activation[..., 2] = 5.0
    activation[..., -1] = 1.0
    return activation


def second_moment(features: Tensor) -> Tensor:
    flat = features.flatten(0, 1)
    return flat.T @ flat / len(flat)


def covariance(features: Tensor) -> Tensor:
    flat = features.flatten(0, 1)
    return second_moment((flat - flat.mean(0))[:, None])


@pytest.mark.parametrize("name", BASELINES)
def test_activations_are_restored(generator: Generator, name: str) -> None:
    for activation in (random_activation(generator, 20, 2, 5), on_a_manifold(generator)):
        basis = fitted(name, statistics_of(activation.flatten(0, 1), True))
        restored = activation @ basis.to_basis @ basis.from_basis
        assert largest_difference(restored, activation) < 1e-13
        identity = torch.eye(basis.n_features, dtype=torch.float64)
        assert largest_difference(basis.from_basis @ basis.to_basis, identity) < 1e-13


@pytest.mark.parametrize("name", BASELINES)
def test_feature_zero_is_the_constant_and_the_others_are_sorted(generator: Generator, name: str) -> None:
    activation = random_activation(generator, 20, 2, 5)
    basis = fitted(name, statistics_of(activation.flatten(0, 1), True))
    features = basis.features(activation)
    assert basis.has_constant
    assert (features[..., 0] == 1).all()
    size = second_moment(features) if name == "svd" else covariance(features)
    assert largest_difference(size.diagonal()[1:], basis.importance[1 : basis.n_features]) < 1e-12
    assert (basis.importance[1:-1] >= basis.importance[2:]).all()
    assert basis.importance[0] == 1.0


@pytest.mark.parametrize(("name", "n_kept"), [("pca", 3), ("svd", 4), ("neuron", 5), ("random", 3)])
def test_directions_without_variation_are_dropped_and_listed_last(generator: Generator, name: str, n_kept: int) -> None:
    """The manifold's mean is a third direction to the second moment; one of five neurons does not vary."""
    basis = fitted(name, statistics_of(on_a_manifold(generator).flatten(0, 1), True))
    assert basis.n_features == n_kept
    assert len(basis.importance) == 6
    assert (basis.importance[n_kept:] <= 1e-12).all()


def test_svd_diagonalises_the_second_moment_and_subtracts_nothing(generator: Generator) -> None:
    activation = random_activation(generator, 20, 2, 5)
    basis = fitted("svd", statistics_of(activation.flatten(0, 1), True))
    found = second_moment(basis.features(activation))[1:, 1:]
    assert largest_difference(found, torch.diag(basis.importance[1:])) < 1e-12
    assert torch.count_nonzero(basis.to_basis[-1, 1:]) == torch.count_nonzero(basis.from_basis[0, :-1]) == 0
    assert (covariance(basis.features(activation))[1:, 1:] - torch.diag(basis.importance[1:])).abs().max() > 0.1


def test_pca_diagonalises_the_covariance(generator: Generator) -> None:
    activation = random_activation(generator, 20, 2, 5)
    basis = fitted("pca", statistics_of(activation.flatten(0, 1), True))
    found = covariance(basis.features(activation))[1:, 1:]
    assert largest_difference(found, torch.diag(basis.importance[1:])) < 1e-12


def test_each_neuron_feature_is_one_centred_neuron() -> None:
    """Variances 1, 4, 1, 0 and 4 around means: sorted, equal ones in the neurons' order, the fourth dropped."""
    varying = torch.tensor([[1.0, 2, 1, 0, 2], [1, -2, -1, 0, 2], [-1, 2, -1, 0, -2], [-1, -2, 1, 0, -2]])
    mean = torch.tensor([3.0, 0.0, -2.0, 7.0, 1.0])
    activation = torch.nn.functional.pad(varying + mean, (0, 1), value=1.0).double()[:, None]
    basis = fitted("neuron", statistics_of(activation.flatten(0, 1), True), truncation=RELATIVE)
    assert basis.importance.tolist() == [1, 4, 4, 1, 1, 0]
    assert torch.equal(basis.features(activation)[:, 0, 1:], varying[:, [1, 4, 0, 2]].double())
    assert basis.from_basis[0].tolist() == [3, 0, -2, 7, 1, 1]
    assert torch.equal(basis.keep_first(activation, 5), activation)


def test_random_directions_are_orthonormal_in_the_principal_subspace(generator: Generator) -> None:
    statistics = statistics_of(on_a_manifold(generator).flatten(0, 1), True)
    basis, principal = fitted("random", statistics), fitted("pca", statistics)
    directions, span = basis.to_basis[:-1, 1:], principal.to_basis[:-1, 1:]
    assert largest_difference(directions.T @ directions, torch.eye(2, dtype=torch.float64)) < 1e-13
    assert largest_difference(span @ span.T @ directions, directions) < 1e-13
    assert basis.importance[1:3].sum().item() == pytest.approx(principal.importance[1:3].sum().item())
    assert (directions - span).abs().max() > 0.01


def test_random_directions_do_not_depend_on_the_choice_of_eigenvectors(generator: Generator) -> None:
    """Where all variances are equal any orthonormal basis is principal; the same directions are drawn."""
    gram = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    mean = torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64)
    noise = 1e-14 * random(generator, 4, 4)
    noise[-1] = noise[:, -1] = 0.0
    one, other = (fitted("random", LayerStatistics(mean, moments, 9)) for moments in (gram, gram + noise + noise.T))
    for column in one.to_basis[:, 1:].T:
        assert (other.to_basis[:, 1:].T - column).abs().amax(1).min() < 1e-11


def test_rotations_are_uniform(generator: Generator) -> None:
    """Entries of a Haar matrix have mean 0 and mean square 1/d; without the sign rule the diagonal has one sign."""
    rotations = torch.stack([haar_rotation(random(generator, 3, 3)) for _ in range(2000)])
    assert largest_difference(rotations @ rotations.mT, torch.eye(3).double().expand(2000, 3, 3)) < 1e-13
    assert rotations.mean(0).abs().max() < 0.06
    assert (rotations.square().mean(0) - 1 / 3).abs().max() < 0.04


def test_random_bases_repeat_by_seed_and_differ_between_seeds_and_layers(generator: Generator) -> None:
    statistics = statistics_of(random_activation(generator, 20, 2, 5).flatten(0, 1), True)

    def drawn(layer: str, seed: int) -> Tensor:
        return random_basis(statistics, True, CUT, torch.float64, generator_of(layer, seed)).to_basis

    assert torch.equal(drawn("layers.0", 3), drawn("layers.0", 3))
    assert (drawn("layers.0", 3) - drawn("layers.0", 4)).abs().max() > 0.01
    assert (drawn("layers.0", 3) - drawn("layers.1", 3)).abs().max() > 0.01


def test_a_layers_random_basis_does_not_depend_on_the_other_layers_analysed(generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 12, 3, 4)
    statistics = chain_statistics(chain, inputs, AMPLE)

    def bases(layers: tuple[str, ...], seed: int) -> dict[str, Basis]:
        return METHODS["random"](chain.restricted_to(layers), inputs, statistics, FitSettings(CUT, seed=seed))

    whole, part = bases(chain.node_layers, 1), bases(("middle", "output"), 1)
    assert torch.equal(whole["middle"].to_basis, part["middle"].to_basis)
    assert not torch.equal(whole["middle"].to_basis, bases(chain.node_layers, 2)["middle"].to_basis)


@pytest.mark.parametrize("name", BASELINES)
def test_every_layer_has_its_method_and_the_logits_stay_neurons(generator: Generator, name: str) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 12, 3, 4)
    statistics = chain_statistics(chain, inputs, AMPLE)
    bases = METHODS[name](chain, inputs, statistics, FitSettings(CUT))
    assert tuple(bases) == chain.node_layers
    assert torch.equal(bases["output"].to_basis, torch.eye(5, dtype=torch.float64))
    assert torch.equal(bases["output"].importance, statistics["output"].gram.diagonal())
    for layer in chain.node_layers[:-1] if name != "random" else ():
        assert torch.equal(bases[layer].to_basis, fitted(name, statistics[layer]).to_basis)


@pytest.mark.parametrize("name", BASELINES)
def test_a_residual_stream_as_last_node_layer_takes_its_principal_components(generator: Generator, name: str) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 12, 3, 4)
    chain = chain.restricted_to(("before", "after"))
    statistics = chain_statistics(chain, inputs, AMPLE)
    bases = METHODS[name](chain, inputs, statistics, FitSettings(CUT))
    assert torch.equal(bases["after"].to_basis, fitted("pca", statistics["after"]).to_basis)


@pytest.mark.parametrize("name", BASELINES)
def test_without_a_constant_coordinate_bases_only_rotate(generator: Generator, name: str) -> None:
    activation = random(generator, 20, 1, 4) + 1
    basis = fitted(name, statistics_of(activation.flatten(0, 1), False), has_constant=False)
    assert not basis.has_constant
    assert torch.equal(basis.from_basis, basis.to_basis.T)
    assert largest_difference(activation @ basis.to_basis @ basis.from_basis, activation) < 1e-13
    assert (basis.importance[:-1] >= basis.importance[1:]).all()


@pytest.mark.parametrize("name", BASELINES)
def test_a_layer_of_zeros_keeps_the_constant_alone(name: str) -> None:
    """Everything is at the cut, which is zero."""
    activation = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(4, 3)
    basis = fitted(name, statistics_of(activation, True), truncation=RELATIVE)
    assert basis.n_features == 1
    assert basis.importance.tolist() == [1.0, 0.0, 0.0]


def test_random_directions_have_their_signs_fixed(generator: Generator) -> None:
    basis = fitted("random", statistics_of(random_activation(generator, 50, 1, 12).flatten(0, 1), True))
    directions = basis.to_basis[:-1, 1:]
    assert torch.equal(directions, fix_signs(directions))


@pytest.mark.parametrize("name", BASELINES)
def test_a_layer_that_does_not_vary_is_its_mean(name: str) -> None:
    activation = torch.tensor([[[2.0, 3.0, 1.0]]], dtype=torch.float64).expand(4, 1, 3)
    basis = fitted(name, statistics_of(activation.flatten(0, 1), True), truncation=RELATIVE)
    assert basis.n_features == (2 if name == "svd" else 1)
    assert largest_difference(activation @ basis.to_basis @ basis.from_basis, activation) < 1e-14
