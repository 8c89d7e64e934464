"""Baselines beside PCA and LIB: each is what it is defined by, on data and loops of its own."""

from __future__ import annotations

import pytest
import slow_reference
import torch
from tiny_models import AMPLE, affine, largest_difference, random, random_activation, random_chain
from torch import Generator, Tensor

from libcore.basis import Basis, in_order
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.graph import interaction_edges
from libcore.methods import METHODS, FitSettings
from libcore.principal_components import principal_components
from libcore.quadrature import Quadrature
from libcore.rotated_components import leading_components, orthomax
from libcore.statistics import chain_statistics

CUT = Truncation("absolute", 1e-12)
LAYERS = ("before", "middle", "after")
WHITENED = ("whitened_pca", "ica", "varimax", "quartimax", "random_matched")


@pytest.fixture
def chain(generator: Generator) -> Chain:
    return random_chain(generator)


@pytest.fixture
def inputs(generator: Generator) -> Tensor:
    return random_activation(generator, 60, 3, 4)


def fitted(name: str, chain: Chain, inputs: Tensor, settings: FitSettings | None = None, **options) -> dict[str, Basis]:
    settings = settings or FitSettings(truncation=CUT)
    return METHODS[name](chain, inputs, chain_statistics(chain, inputs, AMPLE), settings, **options)


def covariance(features: Tensor) -> Tensor:
    centred = features.flatten(0, 1) - features.flatten(0, 1).mean(0)
    return centred.T @ centred / len(centred)


def loadings(basis: Basis) -> Tensor:
    return basis.from_basis[1:, :-1].T


@pytest.mark.parametrize("has_constant", [True, False])
def test_features_in_another_order_are_the_same_features(generator: Generator, has_constant: bool) -> None:
    """Their signs made positive, the constant first, what was dropped behind."""
    to_basis, from_basis, importance = random(generator, 5, 4), random(generator, 4, 5), torch.arange(6.0).double()
    first, order = int(has_constant), torch.tensor([2, 0, 1] if has_constant else [2, 0, 3, 1])
    basis = in_order(Basis(to_basis, from_basis, importance, has_constant), order)
    chosen = torch.cat([torch.arange(first), first + order])
    assert torch.equal(basis.importance, torch.cat([importance[chosen], importance[4:]]))
    for column, number in enumerate(chosen.tolist()):
        direction = to_basis[: 5 - first, number]
        sign = 1.0 if column < first else direction[direction.abs().argmax()].sign()
        assert torch.equal(basis.to_basis[:, column], sign * to_basis[:, number])
        assert torch.equal(basis.from_basis[column], sign * from_basis[number])


@pytest.mark.parametrize("name", WHITENED)
def test_whitened_features_have_variance_one_and_lose_nothing(name: str, chain: Chain, inputs: Tensor) -> None:
    bases = fitted(name, chain, inputs)
    lib = fitted("lib", chain, inputs)
    for index, layer in enumerate(LAYERS):
        activation, basis = chain.activation(inputs, index), bases[layer]
        features = basis.features(activation)
        assert torch.allclose(features[..., 0], torch.ones(()).double())
        identity = torch.eye(basis.n_features - 1, dtype=torch.float64)
        assert largest_difference(covariance(features)[1:, 1:], identity) < 1e-9
        if name == "random_matched":
            # LIB drops what the next layer does not read: what is kept is the same span, as many features.
            assert basis.n_features == lib[layer].n_features
            kept = lib[layer].features(activation) @ lib[layer].from_basis
            assert largest_difference(features @ basis.from_basis, kept) < 1e-9
        else:
            assert largest_difference(features @ basis.from_basis, activation) < 1e-9
        if name != "whitened_pca":
            explained = basis.from_basis[1:].square().sum(1)
            assert largest_difference(basis.importance[1 : basis.n_features], explained) < 1e-12
    assert torch.equal(bases["output"].to_basis, torch.eye(5, dtype=torch.float64))


def test_whitened_pca_has_the_edges_of_pca_but_for_the_scale_of_what_they_end_at(chain: Chain, inputs: Tensor) -> None:
    white, plain = (fitted(name, chain, inputs) for name in ("whitened_pca", "pca"))
    edges, expected = (interaction_edges(chain, inputs, bases, memory_budget=AMPLE) for bases in (white, plain))
    for layer, next_layer in (("before", "middle"), ("middle", "after")):
        variance = plain[next_layer].importance[: plain[next_layer].n_features]
        assert largest_difference(edges[layer] * variance[:, None], expected[layer]) < 1e-10


@pytest.mark.parametrize(("name", "gamma"), [("varimax", 1.0), ("quartimax", 0.0)])
def test_no_plane_rotation_betters_an_orthomax_rotation(
    generator: Generator, name: str, gamma: float, chain: Chain, inputs: Tensor
) -> None:
    def criterion(matrix: Tensor) -> Tensor:
        squares = matrix.square()
        return squares.square().sum() - gamma / len(matrix) * squares.sum(0).square().sum()

    basis = fitted(name, chain, inputs, share=1.0)["before"]
    best, k = criterion(loadings(basis)), basis.n_features - 1
    assert best > criterion(loadings(fitted("whitened_pca", chain, inputs)["before"]))
    for first in range(k):
        for second in range(first):
            for angle in torch.linspace(0, torch.pi / 2, 50).tolist():
                rotation = torch.eye(k, dtype=torch.float64)
                cos, sin = torch.tensor(angle).cos(), torch.tensor(angle).sin()
                rotation[first, first] = rotation[second, second] = cos
                rotation[first, second], rotation[second, first] = -sin, sin
                assert criterion(loadings(basis) @ rotation) <= best * (1 + 1e-9)


def test_varimax_finds_loadings_of_one_coordinate_each(generator: Generator) -> None:
    scale = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5]).double())
    from_components = torch.linalg.qr(random(generator, 4, 4)).Q @ scale
    found = orthomax(torch.zeros(5, 4).double(), torch.cat([from_components, torch.zeros(4, 1).double()], 1), 1.0)
    rotated = found.T @ from_components
    assert largest_difference(rotated.abs().amax(0).sort().values, scale.diagonal().sort().values) < 1e-6


def test_ica_separates_independent_sources(generator: Generator) -> None:
    sources = torch.rand(4000, 1, 3, generator=generator, dtype=torch.float64).sub(0.5) ** 3
    mixed = sources @ random(generator, 3, 3) + 2.0
    activation = torch.cat([mixed, torch.ones(4000, 1, 1).double()], -1)
    chain = Chain(("layer", "output"), (affine(generator, 4, 2, constant_out=False),), lambda f: f, False)
    basis = fitted("ica", chain, activation, share=1.0)["layer"]
    features = basis.features(activation)[:, 0, 1:]
    correlation = torch.corrcoef(torch.cat([features, sources[:, 0]], 1).T)[:3, 3:].abs()
    assert (correlation.amax(1) > 0.99).all()
    assert correlation.argmax(1).unique().numel() == 3


def test_random_matched_follows_the_seed(chain: Chain, inputs: Tensor) -> None:
    one, other = (fitted("random_matched", chain, inputs, FitSettings(truncation=CUT, seed=seed)) for seed in (0, 1))
    assert largest_difference(one["before"].to_basis, other["before"].to_basis) > 1e-3
    given = fitted("random_matched", chain, inputs, FitSettings(truncation=CUT, seed=5), seed=1)
    assert torch.equal(given["before"].to_basis, other["before"].to_basis)


def test_lib_to_output_is_lib_of_two_layers(chain: Chain, inputs: Tensor) -> None:
    """With all layers between left out: LIB itself."""
    bases = fitted("lib_to_output", chain, inputs)
    for layer in LAYERS:
        direct = fitted("lib", chain.restricted_to((layer, "output")), inputs)[layer]
        kept = direct.n_features
        assert bases[layer].n_features == kept
        assert largest_difference(bases[layer].importance[:kept], direct.importance[:kept]) < 1e-9
        assert largest_difference(bases[layer].to_basis, direct.to_basis) < 1e-6


@pytest.mark.parametrize("settings", [FitSettings(truncation=CUT), FitSettings(CUT, Quadrature.of("trapezoidal", 4))])
def test_lib_integrated_is_lib_along_the_path(chain: Chain, inputs: Tensor, settings: FitSettings) -> None:
    along = settings
    if settings.quadrature == FitSettings().quadrature:
        along = FitSettings(truncation=CUT, quadrature=Quadrature.of("gauss_legendre", 10))
    expected = fitted("lib", chain, inputs, along, jacobian="path")
    found = fitted("lib_integrated", chain, inputs, settings)
    for layer in LAYERS:
        assert torch.equal(found[layer].to_basis, expected[layer].to_basis)
    assert largest_difference(found["before"].importance, fitted("lib", chain, inputs)["before"].importance) > 1e-6


def test_jacobian_svd_is_the_jacobians_principal_directions(chain: Chain, inputs: Tensor) -> None:
    bases = fitted("jacobian_svd", chain, inputs)
    for index, layer in enumerate(LAYERS):
        activation = chain.activation(inputs, index)
        section = chain.sections[index]
        function = slow_reference.of_one_example(section, torch.eye(section(activation[:1]).shape[-1]).double())
        gram = slow_reference.jacobian_gram(function, activation, slow_reference.gradient_rule())[:-1, :-1]
        basis = bases[layer]
        directions = basis.to_basis[:-1, 1:]
        assert largest_difference(directions.T @ directions, torch.eye(directions.shape[1]).double()) < 1e-12
        assert (
            largest_difference(directions.T @ gram @ directions, basis.importance[1 : basis.n_features].diag()) < 1e-9
        )
        assert basis.features(activation)[..., 1:].mean((0, 1)).abs().max() < 1e-9


def test_scaled_pca_has_pcas_directions_in_libs_scale(chain: Chain, inputs: Tensor) -> None:
    """The Jacobian to the next layer's features has mean squared columns of 1, as LIB's; LIB's are orthogonal, too."""
    pca = fitted("pca", chain, inputs)
    for name in ("scaled_pca", "lib"):
        bases = fitted(name, chain, inputs)
        for index, layer in enumerate(LAYERS):
            activation, basis = chain.activation(inputs, index), bases[layer]
            next_basis = [*bases.values()][index + 1]
            function = slow_reference.of_one_example(chain.sections[index], next_basis.to_basis)
            gram = slow_reference.jacobian_gram(function, activation, slow_reference.gradient_rule())
            in_features = (basis.from_basis @ gram @ basis.from_basis.T)[1:, 1:]
            assert largest_difference(in_features.diagonal(), torch.ones(len(in_features)).double()) < 1e-9
            variance = covariance(basis.features(activation)).diagonal()[1:]
            assert largest_difference(variance, basis.importance[1 : basis.n_features]) < 1e-9
            assert bool((variance.diff() <= 1e-12).all())
            if name == "scaled_pca":
                directions = basis.to_basis[:-1, 1:]
                overlaps = pca[layer].to_basis[:-1, 1:].T @ (directions / directions.norm(dim=0))
                assert largest_difference(overlaps.abs().max(0).values, torch.ones(overlaps.shape[1]).double()) < 1e-9
                identity = torch.eye(basis.n_features).double()
                assert largest_difference(basis.from_basis @ basis.to_basis, identity) < 1e-9


def test_gradient_pca_is_of_gradients_of_the_cross_entropy(chain: Chain, inputs: Tensor) -> None:
    """To every label in turn, weighted by how probable the model finds it."""
    inputs, bases = inputs[:20], fitted("gradient_pca", chain, inputs[:20])
    for index, layer in enumerate(LAYERS):
        activation = chain.activation(inputs, index).requires_grad_()
        gram = torch.zeros(4, 4).double()
        logits = chain.output_from(activation, index)
        p = logits.softmax(-1)
        for position in range(logits.shape[1]):
            for label in range(5):
                loss = -logits.log_softmax(-1)[:, position, label].sum()
                (gradient,) = torch.autograd.grad(loss, activation, retain_graph=True)
                weighted = gradient * p[:, position, label, None, None].detach().sqrt()
                gram += weighted.flatten(0, 1).T @ weighted.flatten(0, 1)
        gram = (gram / activation[..., 0].numel())[:-1, :-1]
        basis = bases[layer]
        directions = basis.to_basis[:-1, 1:]
        assert (
            largest_difference(directions.T @ gram @ directions, basis.importance[1 : basis.n_features].diag()) < 1e-9
        )


def test_leading_components_are_the_fewest_that_hold_the_share() -> None:
    variance = torch.tensor([6.0, 3.0, 1.0, 0.0])
    for share, expected in ((0.5, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.91, 3), (1.0, 3)):
        assert int(leading_components(variance, share, ()).sum()) == expected, share
    assert leading_components(variance, 0.95, (1,)).tolist() == [True, False, True, False]


def test_components_behind_the_leading_ones_stay(chain: Chain, inputs: Tensor) -> None:
    statistics = chain_statistics(chain, inputs, AMPLE)["before"]
    components = principal_components(statistics, True, CUT, torch.float64)
    whiten, _ = components.whitened()
    n_leading = int(leading_components(components.variance[1:], 0.9, ()).sum())
    assert 0 < n_leading < whiten.shape[1] - 1
    basis = fitted("varimax", chain, inputs, share=0.9)["before"]
    assert largest_difference(basis.to_basis[:, n_leading + 1 :].abs(), whiten[:, n_leading + 1 :].abs()) < 1e-12


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("varimax", {"share": 0.0}, "share=0.0 of the variance; expected a number above 0 and at most 1"),
        ("quartimax", {"share": 1.5}, "share=1.5 of the variance; expected"),
        ("ica", {"share": -1.0}, "share=-1.0 of the variance; expected"),
        ("ica", {"n_samples": 1}, "n_samples=1; expected a whole number from 2 to 2147483647"),
        ("ica", {"max_iter": 0.5}, "max_iter=0.5; expected a whole number from 2 to 2147483647"),
        ("lib_integrated", {"n_points": 0}, "n_points=0"),
    ],
)
def test_options_that_make_no_sense(name: str, options: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        METHODS[name].refuse(FitSettings(), options)
