"""The Local Interaction Basis (eq. 3-6) and its defining properties."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import slow_reference
import torch
from slow_reference import SlowBasis
from tiny_models import (
    AMPLE,
    BUDGETS,
    FITTED,
    affine,
    basis_of,
    largest_difference,
    random,
    random_activation,
    random_chain,
    stream_of,
)
from torch import Generator, Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation, TruncationRule
from libcore.estimators import Estimator, jacobian_gram
from libcore.graph import interaction_edges
from libcore.methods import METHODS, FitSettings
from libcore.methods.lib import fit_lib, lib_basis
from libcore.methods.pca import fit_pca
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import LayerStatistics, chain_statistics, statistics_of

CUT = Truncation("absolute", 1e-12)


def fit(chain: Chain, inputs: Tensor, estimator: Estimator = "auto", memory_budget: int = AMPLE) -> dict[str, Basis]:
    settings = FitSettings(truncation=CUT, estimator=estimator, memory_budget=memory_budget)
    return fit_lib(chain, inputs, chain_statistics(chain, inputs, memory_budget), settings)


def random_gram(generator: Generator, d: int, rank: int | None = None) -> Tensor:
    rows = random(generator, d if rank is None else rank, d)
    return rows.T @ rows


def assert_same_up_to_signs(basis: Basis, expected: SlowBasis) -> None:
    kept = basis.n_features
    assert kept == len(expected.importance)
    assert largest_difference(basis.importance[:kept], expected.importance) < 1e-9
    signs = (basis.to_basis * expected.to_basis).sum(0).sign()
    assert largest_difference(basis.to_basis, expected.to_basis * signs) < 1e-8
    assert largest_difference(basis.from_basis, expected.from_basis * signs[:, None]) < 1e-8


@pytest.mark.parametrize("estimator", ["auto", "exact"])
def test_fit_is_eq_1_to_6_on_every_node_layer(generator: Generator, estimator: Estimator) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    activations = [chain.activation(inputs, index) for index in range(4)]
    reference = slow_reference.lib_of_chain(activations, list(chain.sections), 1e-12)
    bases = fit(chain, inputs, estimator)
    assert tuple(bases) == chain.node_layers
    for layer, expected in zip(chain.node_layers[:-1], reference[:-1], strict=True):
        assert_same_up_to_signs(bases[layer], expected)
    assert torch.equal(bases["output"].to_basis, torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize("memory_budget", BUDGETS)
def test_memory_budget_changes_no_importance(generator: Generator, memory_budget: int) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    whole, chunked = fit(chain, inputs), fit(chain, inputs, memory_budget=memory_budget)
    for layer in chain.node_layers:
        assert largest_difference(chunked[layer].importance, whole[layer].importance) < 1e-10
        assert largest_difference(chunked[layer].to_basis, whole[layer].to_basis) < 1e-9


def test_feature_gram_is_the_importance(generator: Generator) -> None:
    """Whitening, rotating and scaling by `Λ^(1/2)` leaves `E[fhat^T fhat] = Λ`, the constant feature included."""
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    for index, basis in enumerate(list(fit(chain, inputs).values())[:-1]):
        features = basis.features(chain.activation(inputs, index)).flatten(0, 1)
        gram = features.T @ features / len(features)
        assert largest_difference(gram, torch.diag(basis.importance[: basis.n_features])) < 1e-10


def test_jacobian_gram_is_the_importance_of_whitened_and_one_of_scaled_features(generator: Generator) -> None:
    """`C = R V Λ^(1/2)`: `M` is `Λ` in the coordinates `R V`, hence the identity in those of LIB."""
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    bases = fit(chain, inputs)
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        stream = chain.stream(inputs, index, AMPLE)
        gram = jacobian_gram(chain.sections[index], stream, bases[next_layer], GRADIENT)
        of_features = bases[layer].from_basis @ gram @ bases[layer].from_basis.T
        importance = bases[layer].importance[: bases[layer].n_features]
        root = importance.sqrt()
        variable = slice(1, None)
        identity = torch.eye(len(importance) - 1, dtype=torch.float64)
        assert largest_difference(of_features[variable, variable], identity) < 1e-9
        of_whitened = root[:, None] * of_features * root
        assert largest_difference(of_whitened[variable, variable], torch.diag(importance[variable])) < 1e-9
        assert of_whitened[0, 0].item() == pytest.approx(importance[0].item(), rel=1e-9)


def test_from_basis_inverts_to_basis(generator: Generator) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    for index, basis in enumerate(list(fit(chain, inputs).values())[:-1]):
        identity = torch.eye(basis.n_features, dtype=torch.float64)
        activation = chain.activation(inputs, index)
        assert largest_difference(basis.from_basis @ basis.to_basis, identity) < 1e-10
        assert largest_difference(basis.features(activation) @ basis.from_basis, activation) < 1e-10


def test_importances_descend_behind_the_constant(generator: Generator) -> None:
    chain = random_chain(generator)
    for basis in list(fit(chain, random_activation(generator, 8, 3, 4)).values())[:-1]:
        assert basis.has_constant
        assert (basis.importance[1:-1] >= basis.importance[2:]).all()


def test_the_constant_feature_reads_the_constant_coordinate_alone(generator: Generator) -> None:
    chain = random_chain(generator)
    for basis in list(fit(chain, random_activation(generator, 8, 3, 4)).values())[:-1]:
        assert torch.equal(basis.to_basis[:-1, 0], torch.zeros(3, dtype=torch.float64))
        assert basis.to_basis[-1, 0].item() == pytest.approx(basis.importance[0].sqrt().item())


def test_directions_that_the_next_layer_does_not_read_are_dropped(generator: Generator) -> None:
    activation = random_activation(generator, 20, 1, 6)
    section = affine(generator, 6, 2, constant_out=False)
    gram = section.closed_form_jacobian_gram(
        stream_of(activation), basis_of(torch.eye(2, dtype=torch.float64)), GRADIENT
    )
    basis = lib_basis(statistics_of(activation.flatten(0, 1), True), gram, CUT, torch.float64)
    assert basis.n_features == 3
    assert len(basis.importance) == 6
    assert (basis.importance[3:] <= 1e-12).all()
    projected = basis.keep_first(activation, 3)
    assert largest_difference(section(projected), section(activation)) < 1e-10


@pytest.mark.parametrize("scale", [1e-6, 1.0])
@pytest.mark.parametrize("rule", ["absolute", "relative"])
def test_truncation_keeps_the_importances_above_the_cut(rule: TruncationRule, scale: float) -> None:
    """White activations: the importances are the Jacobian Gram's own diagonal."""
    mean = torch.tensor([2.0, 0.0, -1.0, 3.0, 1.0], dtype=torch.float64)
    statistics = LayerStatistics(mean, torch.eye(5, dtype=torch.float64), count=20)
    gram = scale * torch.diag(torch.tensor([0.01, 0.08, 0.02, 0.04, 0.05], dtype=torch.float64))
    threshold = 0.03 * scale if rule == "absolute" else 0.03 / 0.08
    basis = lib_basis(statistics, gram, Truncation(rule, threshold), torch.float64)
    assert basis.n_features == 3
    assert basis.importance[0].item() == pytest.approx((mean @ gram @ mean).item())
    assert (basis.importance[1:] / scale).tolist() == pytest.approx([0.08, 0.04, 0.02, 0.01])


@pytest.mark.parametrize(("rule", "threshold"), [("absolute", 0.5), ("relative", 0.25)])
def test_an_importance_at_the_cut_is_dropped(rule: TruncationRule, threshold: float) -> None:
    """White activations and powers of two: every number is exact, the cut is 0.5."""
    statistics = LayerStatistics(torch.zeros(6).double(), torch.eye(6).double(), count=9)
    gram = torch.diag(torch.tensor([0.5, 2.0, 0.25, 1.0, 0.5, 0.0], dtype=torch.float64))
    basis = lib_basis(statistics, gram, Truncation(rule, threshold), torch.float64)
    assert basis.importance.tolist() == [0.0, 2.0, 1.0, 0.5, 0.5, 0.25]
    assert basis.n_features == 3


@pytest.mark.parametrize("truncation", [Truncation(), Truncation("absolute", 0.0)])
def test_of_directions_that_nothing_reads_the_constant_is_left(generator: Generator, truncation: Truncation) -> None:
    """All importances are the cut itself: zero."""
    statistics = statistics_of(random_activation(generator, 20, 1, 4).flatten(0, 1), True)
    basis = lib_basis(statistics, torch.zeros(4, 4).double(), truncation, torch.float64)
    assert basis.n_features == 1
    assert basis.importance.tolist() == [0.0] * 4
    assert basis.from_basis.isfinite().all()


def test_directions_without_variance_are_dropped(generator: Generator) -> None:
    activation = random(generator, 20, 3) @ random(generator, 3, 6) + random(generator, 6)
    activation[:, -1] = 1.0
    basis = lib_basis(statistics_of(activation, True), random_gram(generator, 6), CUT, torch.float64)
    assert basis.n_features == 4
    assert largest_difference(activation @ basis.to_basis @ basis.from_basis, activation) < 1e-10


def test_a_layer_in_which_only_the_constant_varies_keeps_the_constant(generator: Generator) -> None:
    activation = torch.tensor([[2.0, 3.0, 1.0]], dtype=torch.float64).expand(5, 3)
    basis = lib_basis(statistics_of(activation, True), random_gram(generator, 3), Truncation(), torch.float64)
    assert basis.n_features == 1
    assert largest_difference(activation @ basis.to_basis @ basis.from_basis, activation) < 1e-12


def test_a_constant_that_nothing_depends_on_leaves_the_basis_finite() -> None:
    """Mean zero and no bias anywhere: `Λ_0 = 0`, the constant cannot be scaled back by `Λ_0^(-1/2)`."""
    activation = torch.tensor([[1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, -2.0, 1.0]]).double()
    gram = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    basis = lib_basis(statistics_of(activation, True), gram, Truncation(), torch.float64)
    assert basis.from_basis.isfinite().all()
    assert basis.features(activation[None]).isfinite().all()


def test_an_importance_of_the_constant_below_zero_is_round_off() -> None:
    statistics = LayerStatistics(torch.tensor([0.0, 0.0, 1.0]).double(), torch.eye(3).double(), count=9)
    basis = lib_basis(statistics, torch.diag(torch.tensor([1.0, 2.0, -1e-18]).double()), CUT, torch.float64)
    assert basis.importance.tolist() == [0.0, 2.0, 1.0]
    assert basis.to_basis[-1, 0] == basis.from_basis[0, -1] == 1.0


def test_of_float32_activations_everything_is_summed_and_solved_in_float64(generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 8, 3, 4)
    single = replace(chain, sections=tuple(section.to(dtype=torch.float32) for section in chain.sections))
    bases, expected = fit(single, inputs.float()), fit(chain, inputs)
    edges, expected_edges = interaction_edges(single, inputs.float(), bases), interaction_edges(chain, inputs, bases)
    for layer in chain.node_layers[:-1]:
        assert bases[layer].to_basis.dtype == edges[layer].dtype == torch.float64
        assert largest_difference(bases[layer].importance, expected[layer].importance) < 1e-3
        assert largest_difference(edges[layer], expected_edges[layer]) < 1e-4


def test_jacobian_averaged_along_the_path(generator: Generator) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    settings = FitSettings(truncation=CUT, quadrature=Quadrature.of("gauss_legendre", 3))
    bases = fit_lib(chain, inputs, chain_statistics(chain, inputs, AMPLE), settings, jacobian="path")
    basis, middle = bases["after"], bases["middle"]
    function = slow_reference.of_one_example(chain.sections[1], basis.to_basis)
    activation = chain.activation(inputs, 1)
    gram = slow_reference.jacobian_gram(function, activation, slow_reference.gauss_legendre_rule(3))
    assert_same_up_to_signs(middle, slow_reference.lib_basis(activation, gram, 1e-12))


def test_a_residual_stream_as_last_node_layer_takes_its_principal_components(generator: Generator) -> None:
    chain = random_chain(generator).restricted_to(["before", "middle", "after"])
    inputs = random_activation(generator, 8, 3, 4)
    reference = slow_reference.principal_basis(chain.activation(inputs, 2), 1e-12)
    assert_same_up_to_signs(fit(chain, inputs)["after"], reference)


def test_pca_method_fits_every_layer_by_itself_and_leaves_the_logits(generator: Generator) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    bases = fit_pca(chain, inputs, chain_statistics(chain, inputs, AMPLE), FitSettings(truncation=CUT))
    assert tuple(bases) == chain.node_layers
    for index, layer in enumerate(chain.node_layers[:-1]):
        assert_same_up_to_signs(bases[layer], slow_reference.principal_basis(chain.activation(inputs, index), 1e-12))
    assert torch.equal(bases["output"].to_basis, torch.eye(5, dtype=torch.float64))
    variance = chain.activation(inputs, 3).flatten(0, 1).var(0, correction=0)
    assert largest_difference(bases["output"].importance, variance) < 1e-12


@pytest.mark.parametrize("name", FITTED)
def test_equal_inputs_give_equal_bases(generator: Generator, name: str) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 8, 3, 4)
    statistics = chain_statistics(chain, inputs, AMPLE)
    first, second = (METHODS[name](chain, inputs, statistics, FitSettings()) for _ in range(2))
    for layer in chain.node_layers:
        assert torch.equal(first[layer].to_basis, second[layer].to_basis)
        assert torch.equal(first[layer].importance, second[layer].importance)
