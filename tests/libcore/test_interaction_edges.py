"""Edges (eq. 7-8): differentiation equals loops, closed forms equal differentiation."""

from __future__ import annotations

import pytest
import slow_reference
import torch
from section_cases import CLOSED_FORM, D_IN, D_OUT, RULES, SECTIONS, Case, case_of
from tiny_models import (
    AMPLE,
    BUDGETS,
    affine,
    basis_of,
    largest_difference,
    random,
    random_activation,
    random_chain,
    stream_of,
)

from libcore.basis import Basis
from libcore.estimators.differentiation import JacobianRows, exact_edges
from libcore.graph import interaction_edges
from libcore.quadrature import GRADIENT, Quadrature
from libcore.sections import ClosedForm


def exact(case: Case, quadrature: Quadrature, memory_budget: int = AMPLE) -> torch.Tensor:
    stream = stream_of(case.activation, memory_budget)
    return exact_edges(case.section, stream, case.basis, case.next_basis, quadrature)


def closed_form(case: Case, quadrature: Quadrature, memory_budget: int = AMPLE) -> torch.Tensor:
    assert isinstance(case.section, ClosedForm)
    stream = stream_of(case.activation, memory_budget)
    return case.section.closed_form_edges(stream, case.basis, case.next_basis, quadrature)


def truncated(case: Case, kept: int) -> Case:
    """The same case with only the first `kept` features of its basis."""
    basis = Basis(case.basis.to_basis[:, :kept], case.basis.from_basis[:kept], case.basis.importance, True)
    return Case(case.section, case.activation, basis, case.next_basis)


@pytest.mark.parametrize("kept", [2, D_IN])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SECTIONS)
def test_exact_is_eq_8(generator: torch.Generator, name: str, rule: str, kept: int) -> None:
    case = truncated(case_of(SECTIONS[name](generator), generator), kept)
    quadrature, slow_rule = RULES[rule]
    function = slow_reference.of_one_example(case.section, case.to_basis_next, case.basis.from_basis)
    expected = slow_reference.edges(function, case.features, slow_rule)
    assert largest_difference(exact(case, quadrature), expected) < 1e-12


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_form_is_exact(generator: torch.Generator, name: str, rule: str, positions: int) -> None:
    case = case_of(CLOSED_FORM[name](generator), generator, positions=positions)
    quadrature, _ = RULES[rule]
    closed = closed_form(case, quadrature)
    assert closed.dtype == torch.float64
    assert largest_difference(closed, exact(case, quadrature)) < 1e-10


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_form_is_exact_in_a_truncated_basis(generator: torch.Generator, name: str, rule: str) -> None:
    """Eq. 7 differentiates at `α fhat`: the section sees `fhat @ Cpinv`, in a truncated basis other than `f`."""
    case = truncated(case_of(CLOSED_FORM[name](generator), generator), kept=2)
    quadrature, _ = RULES[rule]
    assert largest_difference(closed_form(case, quadrature), exact(case, quadrature)) < 1e-10


@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("name", ["gelu", "affine", "attention_read_at_some_positions"])
def test_memory_budget_changes_no_number(generator: torch.Generator, name: str, memory_budget: int) -> None:
    next_features = 2 * JacobianRows.MINIMUM_BLOCK + 3
    case = case_of(SECTIONS[name](generator), generator, n=7, next_features=next_features)
    quadrature, _ = RULES["trapezoidal"]
    whole = exact(case, quadrature)
    assert largest_difference(exact(case, quadrature, memory_budget), whole) < 1e-13
    if isinstance(case.section, ClosedForm):
        assert largest_difference(closed_form(case, quadrature, memory_budget), whole) < 1e-10


def test_an_affine_edge_is_weight_squared_times_mean_square(generator: torch.Generator) -> None:
    section = affine(generator, D_IN, D_OUT, constant_out=False)
    activation, identity = random_activation(generator, 6, 2, D_IN), torch.eye(D_IN, dtype=torch.float64)
    basis = Basis(identity, identity, torch.ones(D_IN, dtype=torch.float64), True)
    case = Case(section, activation, basis, basis_of(torch.eye(D_OUT, dtype=torch.float64)))
    mean_square = activation.square().flatten(0, 1).mean(0)
    for j in range(D_IN):
        for i in range(D_OUT):
            expected = section.weight[j, i] ** 2 * mean_square[j]
            assert closed_form(case, GRADIENT)[i, j].item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("estimator", ["auto", "exact"])
def test_edges_of_a_whole_chain(generator: torch.Generator, estimator: str) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 4, 3, 4)
    quadrature, slow_rule = RULES["gauss_legendre"]
    bases = {}
    for layer, width in zip(chain.node_layers, (4, 4, 4, 5), strict=True):
        to_basis = random(generator, width, width)
        bases[layer] = Basis(to_basis, torch.linalg.inv(to_basis), random(generator, width), layer != "output")
    strengths = interaction_edges(chain, inputs, bases, quadrature, estimator, memory_budget=1000)  # pyright: ignore
    assert tuple(strengths) == chain.node_layers[:-1]
    for index, (layer, next_layer) in enumerate(zip(chain.node_layers, chain.node_layers[1:], strict=False)):
        features = bases[layer].features(chain.activation(inputs, index))
        function = slow_reference.of_one_example(
            chain.sections[index], bases[next_layer].to_basis, bases[layer].from_basis
        )
        expected = slow_reference.edges(function, features, slow_rule)
        assert largest_difference(strengths[layer], expected) < 1e-11
