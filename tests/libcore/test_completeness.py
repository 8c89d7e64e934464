"""Integrated attributions add up to what the output feature gained over the zero activation."""

from __future__ import annotations

import pytest
import slow_reference
import torch
from section_cases import SECTIONS, Case, case_of
from tiny_models import AMPLE, largest_difference

from libcore.estimators.differentiation import JacobianRows
from libcore.quadrature import Quadrature

SMOOTH = ["affine", "gelu", "sigmoid", "attention", "attention_bidirectional", "attention_read_at_some_positions"]


def gained(case: Case) -> torch.Tensor:
    """`fhat(x) - fhat(0)`, `[position_out, feature_out, example]`."""
    nothing = torch.zeros_like(case.activation)
    difference = (case.section(case.activation) - case.section(nothing)) @ case.to_basis_next
    return difference.permute(1, 2, 0)


def attributed(case: Case, quadrature: Quadrature) -> torch.Tensor:
    """`sum_j A_tij`, `[position_out, feature_out, example]`."""

    def to_features(features: torch.Tensor) -> torch.Tensor:
        return case.section(features @ case.basis.from_basis) @ case.to_basis_next

    rows = JacobianRows(to_features, case.features[:1], AMPLE)
    jacobian = torch.cat(list(rows(case.features, quadrature)))
    attribution = torch.einsum("rbsj,bsj->rb", jacobian, case.features)
    return attribution.unflatten(0, (-1, case.to_basis_next.shape[1]))


def tame_case(name: str, generator: torch.Generator) -> Case:
    """Activations small enough that forty points resolve the path."""
    case = case_of(SECTIONS[name](generator), generator)
    case.activation[..., :-1] /= 3
    return case


@pytest.mark.parametrize("name", SMOOTH)
def test_attributions_are_complete_on_smooth_sections(generator: torch.Generator, name: str) -> None:
    case = tame_case(name, generator)
    total = attributed(case, Quadrature.of("gauss_legendre", 40))
    assert largest_difference(total, gained(case)) < 1e-8


@pytest.mark.parametrize("name", ["attention", "gelu"])
def test_the_slow_reference_is_complete_too(generator: torch.Generator, name: str) -> None:
    case = tame_case(name, generator)
    function = slow_reference.of_one_example(case.section, case.to_basis_next, case.basis.from_basis)
    attribution = slow_reference.attribution(function, case.features[0], slow_reference.gauss_legendre_rule(40))
    assert largest_difference(attribution.sum(-1), gained(case)[..., 0]) < 1e-8


def test_the_gradient_rule_is_complete_where_the_section_is_linear_only(generator: torch.Generator) -> None:
    gradient = Quadrature.of("gradient", 1)
    linear, curved = tame_case("affine", generator), tame_case("gelu", generator)
    assert largest_difference(attributed(linear, gradient), gained(linear)) < 1e-12
    assert largest_difference(attributed(curved, gradient), gained(curved)) > 1e-3


@pytest.mark.parametrize("name", ["attention", "gelu"])
def test_the_trapezoidal_error_falls_with_the_square_of_the_intervals(generator: torch.Generator, name: str) -> None:
    case = tame_case(name, generator)
    errors = [
        largest_difference(attributed(case, Quadrature.of("trapezoidal", n)), gained(case)) for n in (40, 80, 160)
    ]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.05)
