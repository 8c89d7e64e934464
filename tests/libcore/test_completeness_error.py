"""The check that attributions add up: it is their sum's error, and falls as the rule gets finer."""

from __future__ import annotations

import pytest
import torch
from section_cases import CLOSED_FORM, case_of
from tiny_models import AMPLE, basis_of, random_activation, random_chain, stream_of
from torch import Generator
from transformer_blocks import BLOCKS, D

from libcore.estimators.completeness import chain_completeness, completeness_error
from libcore.estimators.differentiation import JacobianRows
from libcore.methods import FitSettings
from libcore.methods.pca import fit_pca
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import chain_statistics


@pytest.mark.parametrize("rule", [GRADIENT, Quadrature.of("trapezoidal", 3)])
@pytest.mark.parametrize("name", ["gelu", "attention"])
def test_is_the_error_of_the_summed_attributions(generator: Generator, name: str, rule: Quadrature) -> None:
    case = case_of(CLOSED_FORM[name](generator), generator)
    basis, features = case.basis, case.features

    def to_features(at: torch.Tensor) -> torch.Tensor:
        return case.section(at @ basis.from_basis) @ case.to_basis_next

    rows = JacobianRows(to_features, features[:1], 2**24)
    attributed = torch.cat([(row * features).sum((2, 3)) for row in rows(features, rule)]).T
    change = (to_features(features) - to_features(0 * features)).flatten(1)
    expected = ((attributed - change).norm() / change.norm()).item()
    arguments = (basis, case.next_basis, rule)
    assert expected > 1e-6
    assert completeness_error(case.section, stream_of(case.activation), *arguments) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["attention, LayerNorm", "gated MLP, RMSNorm", "parallel, rotary, gated, RMSNorm"])
def test_vanishes_with_enough_points(generator: Generator, name: str) -> None:
    section, activation = BLOCKS[name](generator), random_activation(generator, 3, 4, D)
    eye = basis_of(torch.eye(D, dtype=torch.float64))

    def error(n_points: int) -> float:
        return completeness_error(section, stream_of(activation), eye, eye, Quadrature.of("gauss_legendre", n_points))

    assert error(200) < 1e-9
    assert error(5) > 1e-4


def test_float32_activations_keep_their_precision(generator: Generator) -> None:
    section, activation = BLOCKS["MLP"](generator), random_activation(generator, 2, 3, D)
    eye, fine = basis_of(torch.eye(D, dtype=torch.float64)), Quadrature.of("gauss_legendre", 60)
    single = section.to(dtype=torch.float32)
    assert completeness_error(single, stream_of(activation.float()), eye, eye, fine) < 1e-5


def test_of_a_chain_is_that_of_its_sections(generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 12, 3, 4)
    bases = fit_pca(chain, inputs, chain_statistics(chain, inputs, AMPLE), FitSettings())
    errors = chain_completeness(chain, inputs, bases, GRADIENT, AMPLE)
    assert list(errors) == list(chain.node_layers[:-1])
    last = chain.node_layers[-2]
    stream = chain.stream(inputs, 2, AMPLE)
    expected = completeness_error(chain.sections[2], stream, bases[last], bases["output"], GRADIENT)
    assert errors[last] == pytest.approx(expected)
