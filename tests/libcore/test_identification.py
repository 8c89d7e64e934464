"""Features that round-off identifies: known rotations, order and scale, cut directions, and bases fitted anew."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from libcore.basis import Basis, in_order
from libcore.eigen import RELATIVE, Truncation
from libcore.identification import (
    HIGHER_CUT,
    IDENTIFIED,
    ROUNDINGS,
    components,
    condition,
    higher_cut,
    movement,
    rounded_anew,
)
from libcore.layer_by_layer import principal_basis
from libcore.statistics import LayerStatistics, statistics_of

WIDTH = 7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def statistics() -> LayerStatistics:
    """Of correlated activations far from zero, with the constant coordinate."""
    activation = drawn(500, WIDTH, seed=1) @ drawn(WIDTH, WIDTH, seed=2) + 3
    return statistics_of(torch.cat([activation, torch.ones(500, 1).double()], 1), has_constant=True)


@pytest.fixture
def basis(statistics) -> Basis:
    """Uncorrelated features."""
    return principal_basis(statistics, True, RELATIVE, torch.float64)


def turned(basis: Basis, statistics: LayerStatistics, first: int, second: int, angle: float) -> Basis:
    """Two features mixed as functions of the input: turned by an angle where both have variance 1."""
    columns = basis.to_basis[:-1]
    scale = (columns * (statistics.gram[:-1, :-1] @ columns)).sum(0).sqrt()
    scale[0] = 1.0
    rotation = torch.eye(basis.n_features, dtype=torch.float64)
    cosine, sine = math.cos(angle), math.sin(angle)
    rotation[first, first] = rotation[second, second] = cosine
    rotation[first, second], rotation[second, first] = -sine, sine
    mix = (rotation / scale[:, None]) * scale
    return Basis(basis.to_basis @ mix, torch.linalg.inv(mix) @ basis.from_basis, basis.importance, True)


class TestMovement:
    def test_nothing_moves(self, statistics, basis):
        moved = movement(statistics, basis, basis)
        assert moved.alone.max() < 1e-12
        assert moved.identified.all()
        assert moved.identified_in_group.all()
        assert (moved.group == -1).all()

    @pytest.mark.parametrize("angle", [1e-9, 1e-5, 2e-3, 0.3])
    def test_is_the_sine_of_the_angle(self, statistics, basis, angle):
        moved = movement(statistics, basis, turned(basis, statistics, 2, 5, angle))
        expected = torch.zeros(WIDTH).double()
        expected[[1, 4]] = math.sin(angle)
        torch.testing.assert_close(moved.alone, expected, rtol=1e-5, atol=1e-13)
        assert moved.identified.sum() == (WIDTH if angle < IDENTIFIED else WIDTH - 2)

    def test_two_that_mix_are_identified_as_their_span(self, statistics, basis):
        moved = movement(statistics, basis, turned(basis, statistics, 2, 5, 0.7))
        assert moved.in_group.max() < 1e-12
        assert moved.identified_in_group.all()
        assert moved.group.tolist() == [-1, 0, -1, -1, 0, -1, -1]

    def test_two_pairs_are_two_groups(self, statistics, basis):
        other = turned(turned(basis, statistics, 1, 2, 0.4), statistics, 3, 6, 0.2)
        assert movement(statistics, basis, other).group.tolist() == [0, 0, 1, -1, -1, 1, -1]

    def test_a_direction_that_the_other_basis_lacks_belongs_to_no_span(self, statistics, basis):
        mixed = turned(basis, statistics, 2, 5, 0.7)
        without = Basis(mixed.to_basis[:, :5], mixed.from_basis[:5], mixed.importance, True)
        moved = movement(statistics, basis, without)
        assert moved.identified.tolist() == [True, False, True, True, False, False, False]
        assert not moved.identified_in_group[[1, 4, 5, 6]].any()
        assert moved.alone[1] == pytest.approx(math.sin(0.7))
        assert moved.alone[5:].tolist() == pytest.approx([1.0, 1.0])

    def test_order_sign_and_scale_do_not_matter(self, statistics, basis):
        other = in_order(basis, torch.tensor([3, 0, 6, 1, 5, 2, 4]))
        scale = torch.tensor([1.0, -2, 1e6, 1e-6, 3, -1, 1, 5]).double()
        other = Basis(other.to_basis * scale, other.from_basis / scale[:, None], other.importance, True)
        assert movement(statistics, basis, other).identified.all()

    def test_the_constant_does_not_move(self, statistics, basis):
        moved = movement(statistics, basis, turned(basis, statistics, 1, 2, 0.4)).with_constant(True)
        assert moved.alone.tolist()[0] == 0.0
        assert moved.identified.tolist() == [True, False, False, *[True] * 5]
        assert moved.group.tolist() == [-1, 0, 0, *[-1] * 5]

    def test_a_basis_without_features_has_none_to_compare(self, statistics, basis):
        empty = Basis(basis.to_basis[:, :1], basis.from_basis[:1], basis.importance, True)
        assert movement(statistics, empty, basis).alone.shape == (0,)
        assert movement(statistics, basis, empty).alone.tolist() == [1.0] * WIDTH


def test_components_follow_chains():
    joined = torch.zeros(6, 6, dtype=torch.bool)
    for one, other in ((0, 4), (4, 2), (1, 5)):
        joined[one, other] = joined[other, one] = True
    assert components(joined).tolist() == [0, 1, 0, 2, 0, 1]


class TestRoundedMoments:
    def test_are_symmetric_and_off_by_a_few_roundings(self, statistics):
        rounded = rounded_anew({"a": statistics})["a"].gram
        torch.testing.assert_close(rounded, rounded.T, rtol=0, atol=0)
        deviation = statistics.gram.diagonal().sqrt()
        off = (rounded - statistics.gram)[:-1, :-1] / torch.outer(deviation, deviation)[:-1, :-1]
        eps = torch.finfo(torch.float64).eps
        assert 0.3 * ROUNDINGS * eps < off.square().mean().sqrt() < 3 * ROUNDINGS * eps

    def test_are_the_same_each_time_and_differ_between_layers(self, statistics):
        once, again = (rounded_anew({"a": statistics, "b": statistics}) for _ in range(2))
        assert torch.equal(once["a"].gram, again["a"].gram)
        assert not torch.equal(once["a"].gram, once["b"].gram)

    @pytest.mark.parametrize(
        ("truncation", "expected"),
        [
            (RELATIVE, HIGHER_CUT * 2.0**-52),
            (Truncation("relative", 1e-6), HIGHER_CUT * 1e-6),
            (Truncation("absolute"), HIGHER_CUT * 1e-15),
        ],
    )
    def test_the_cut_is_higher_by_the_same_rule(self, truncation, expected):
        higher = higher_cut(truncation, torch.float64)
        assert (higher.rule, higher.threshold) == (truncation.rule, expected)


class TestCondition:
    def test_of_principal_components_is_terms_over_deviation(self, statistics, basis):
        worst = 0.0
        for column in basis.to_basis[:-1, 1:].T:
            gram, mean = statistics.gram[:-1, :-1], statistics.mean[:-1]
            terms = sum(c**2 * (gram[i, i] + mean[i] ** 2) for i, c in enumerate(column))
            worst = max(worst, (terms / (column @ gram @ column)).sqrt().item())
        assert condition(statistics, basis) == pytest.approx(worst)

    def test_grows_as_a_direction_shrinks(self):
        """Two coordinates that differ by a thousandth: their difference is read from larger terms."""
        one = drawn(4000, 1)
        activation = torch.cat([one, one + 1e-3 * drawn(4000, 1, seed=5)], 1)
        statistics = statistics_of(activation, has_constant=False)
        found = principal_basis(statistics, False, RELATIVE, torch.float64)
        assert condition(statistics, found) == pytest.approx(2**0.5 * 1e3, rel=0.05)


class TestPrincipalComponentsFittedAnew:
    def fitted_twice(
        self, variances: list[float], truncation: Truncation = RELATIVE
    ) -> tuple[LayerStatistics, Basis, Basis]:
        rotation = torch.linalg.qr(drawn(len(variances), len(variances), seed=8)).Q
        gram = rotation @ torch.diag(torch.tensor(variances).double()) @ rotation.T
        statistics = LayerStatistics(gram.new_zeros(len(gram)), (gram + gram.T) / 2, 10_000)
        again = rounded_anew({"a": statistics})["a"]
        first = principal_basis(statistics, False, truncation, torch.float64)
        return statistics, first, principal_basis(again, False, higher_cut(truncation, torch.float64), torch.float64)

    def test_equal_variances_are_identified_as_a_subspace_alone(self):
        moved = movement(*self.fitted_twice([5.0, 2.0, 2.0, 2.0, 1.0, 0.3]))
        assert moved.identified.tolist() == [True, False, False, False, True, True]
        assert moved.identified_in_group.all()

    def test_separate_variances_are_identified(self):
        assert movement(*self.fitted_twice([5.0, 2.0, 1.0, 0.1, 1e-4])).identified.all()

    def test_a_variance_at_the_cut_is_not(self):
        moved = movement(*self.fitted_twice([1.0, 0.1, 3e-16], Truncation("relative", 1e-16)))
        assert moved.identified.tolist() == [True, True, False]
        assert not moved.identified_in_group[2]
