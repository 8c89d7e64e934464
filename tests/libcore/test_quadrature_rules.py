"""Integration rules on [0, 1]: points, weights, exactness and refusals."""

from __future__ import annotations

import pytest
import slow_reference

from libcore.quadrature import GRADIENT, INTEGRATION_RULES, Quadrature


def integral_of_power(quadrature: Quadrature, power: int) -> float:
    return sum(weight * alpha**power for alpha, weight in quadrature)


def test_gradient_is_the_data_point_whatever_the_number_of_points() -> None:
    assert list(GRADIENT) == [(1.0, 1.0)]
    assert Quadrature.of("gradient", 7) == GRADIENT


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_rules_are_the_slow_reference(n: int) -> None:
    for rule, expected in (
        ("trapezoidal", slow_reference.trapezoidal_rule(n)),
        ("gauss_legendre", slow_reference.gauss_legendre_rule(n)),
    ):
        quadrature = Quadrature.of(rule, n)
        assert list(quadrature.points) == pytest.approx([alpha for alpha, _ in expected], abs=1e-14)
        assert list(quadrature.weights) == pytest.approx([weight for _, weight in expected], abs=1e-14)


@pytest.mark.parametrize("rule", INTEGRATION_RULES)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_weights_sum_to_one(rule: str, n: int) -> None:
    assert sum(Quadrature.of(rule, n).weights) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_gauss_legendre_is_exact_to_degree_2n_minus_1_and_no_further(n: int) -> None:
    quadrature = Quadrature.of("gauss_legendre", n)
    for power in range(2 * n):
        assert integral_of_power(quadrature, power) == pytest.approx(1 / (power + 1), abs=1e-14)
    assert integral_of_power(quadrature, 2 * n) != pytest.approx(1 / (2 * n + 1), abs=1e-10)


def test_trapezoidal_error_falls_with_the_square_of_the_number_of_intervals() -> None:
    errors = [abs(integral_of_power(Quadrature.of("trapezoidal", n), 2) - 1 / 3) for n in (4, 8, 16)]
    assert errors[0] / errors[1] == pytest.approx(4.0)
    assert errors[1] / errors[2] == pytest.approx(4.0)


@pytest.mark.parametrize("rule", INTEGRATION_RULES)
def test_fewer_than_one_point_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="n_points=0"):
        Quadrature.of(rule, 0)


def test_an_unknown_rule_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"'simpson'.*gradient, trapezoidal, gauss_legendre"):
        Quadrature.of("simpson", 3)
