"""The Jacobian Gram (eq. 4): differentiation equals loops, closed forms equal differentiation."""

from __future__ import annotations

import pytest
import slow_reference
import torch
from section_cases import CLOSED_FORM, D_IN, D_OUT, RULES, SECTIONS, case_of
from tiny_models import (
    AMPLE,
    BUDGETS,
    affine,
    basis_of,
    largest_difference,
    random,
    random_activation,
    residual_elementwise,
    stream_of,
)
from torch.nn import functional

from libcore.estimators.differentiation import JacobianRows, exact_jacobian_gram
from libcore.quadrature import GRADIENT
from libcore.sections import ClosedForm


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SECTIONS)
def test_exact_is_eq_4(generator: torch.Generator, name: str, rule: str) -> None:
    case = case_of(SECTIONS[name](generator), generator)
    quadrature, slow_rule = RULES[rule]
    gram = exact_jacobian_gram(case.section, stream_of(case.activation), case.next_basis, quadrature)
    function = slow_reference.of_one_example(case.section, case.to_basis_next)
    assert largest_difference(gram, slow_reference.jacobian_gram(function, case.activation, slow_rule)) < 1e-12


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_form_is_exact(generator: torch.Generator, name: str, rule: str, positions: int) -> None:
    case = case_of(CLOSED_FORM[name](generator), generator, positions=positions)
    quadrature, _ = RULES[rule]
    assert isinstance(case.section, ClosedForm)
    closed = case.section.closed_form_jacobian_gram(stream_of(case.activation), case.next_basis, quadrature)
    exact = exact_jacobian_gram(case.section, stream_of(case.activation), case.next_basis, quadrature)
    assert closed.dtype == torch.float64
    assert largest_difference(closed, exact) < 1e-10


@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("name", ["gelu", "attention_read_at_some_positions"])
def test_memory_budget_changes_no_number(generator: torch.Generator, name: str, memory_budget: int) -> None:
    blocks_of_features = 2 * JacobianRows.MINIMUM_BLOCK + 3
    case = case_of(SECTIONS[name](generator), generator, n=7, next_features=blocks_of_features)
    quadrature, _ = RULES["trapezoidal"]
    whole = exact_jacobian_gram(case.section, stream_of(case.activation, AMPLE), case.next_basis, quadrature)
    stream = stream_of(case.activation, memory_budget)
    assert largest_difference(exact_jacobian_gram(case.section, stream, case.next_basis, quadrature), whole) < 1e-13
    if isinstance(case.section, ClosedForm):
        closed = case.section.closed_form_jacobian_gram(stream, case.next_basis, quadrature)
        assert largest_difference(closed, whole) < 1e-10


def test_a_tiny_budget_forces_blocks_and_an_ample_one_takes_all_features(generator: torch.Generator) -> None:
    n_out = 2 * JacobianRows.MINIMUM_BLOCK + 3
    case = case_of(SECTIONS["attention"](generator), generator, next_features=n_out)

    def to_features(activation: torch.Tensor) -> torch.Tensor:
        return case.section(activation) @ case.to_basis_next

    tiny = JacobianRows(to_features, case.activation[:1], 1)
    assert list(tiny.feature_ranges()) == [(0, 8), (8, 16), (16, 19)] * 3
    ample = JacobianRows(to_features, case.activation[:1], AMPLE)
    assert list(ample.feature_ranges()) == [(0, n_out)] * 3


@pytest.mark.parametrize("memory_budget", [1, AMPLE])
def test_rows_are_the_jacobian(generator: torch.Generator, memory_budget: int) -> None:
    case = case_of(SECTIONS["attention"](generator), generator, next_features=10)
    quadrature, slow_rule = RULES["gauss_legendre"]
    rows = JacobianRows(lambda f: case.section(f) @ case.to_basis_next, case.activation[:1], memory_budget)
    by_position = torch.cat(list(rows(case.activation, quadrature))).unflatten(0, (3, 10))
    function = slow_reference.of_one_example(case.section, case.to_basis_next)
    for x, point in enumerate(case.activation):
        expected = slow_reference.average_jacobian(function, point, slow_rule)
        assert largest_difference(by_position[:, :, x], expected) < 1e-12


def test_affine_is_the_formula_without_data(generator: torch.Generator) -> None:
    section, next_basis = affine(generator, D_IN, D_OUT, constant_out=False), basis_of(random(generator, D_OUT, 6))
    gram = section.closed_form_jacobian_gram(stream_of(torch.ones(1, 2, D_IN)), next_basis, GRADIENT)
    expected = section.weight @ next_basis.to_basis @ next_basis.to_basis.T @ section.weight.T
    assert largest_difference(gram, expected) < 1e-14


def test_float32_data_are_summed_in_float64(generator: torch.Generator) -> None:
    section = residual_elementwise(generator, D_IN, 5, D_OUT, functional.gelu)
    activation, next_basis = random_activation(generator, 5, 2, D_IN), basis_of(random(generator, D_OUT, 4))
    whole = exact_jacobian_gram(section, stream_of(activation), next_basis, GRADIENT)
    single = section.to(dtype=torch.float32)
    for gram in (
        exact_jacobian_gram(single, stream_of(activation.float()), next_basis.to(dtype=torch.float32), GRADIENT),
        single.closed_form_jacobian_gram(stream_of(activation.float()), next_basis.to(dtype=torch.float32), GRADIENT),  # pyright: ignore
    ):
        assert gram.dtype == torch.float64
        assert largest_difference(gram, whole) < 1e-5
