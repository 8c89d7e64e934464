"""Sparsity of edge matrices: hand-computed values and what must hold for every matrix."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from libcore.sparsity import gini, hoyer, mass_share, participation_ratio

MEASURES = [mass_share, hoyer, gini, participation_ratio]
Measure = Callable[[Tensor], float]


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


ONE_HOT = matrix([0.0, 0.0, 0.0], [0.0, 7.0, 0.0])
UNIFORM = torch.full((3, 4), 2.5, dtype=torch.float64)
BY_HAND = matrix([1.0, 2.0], [3.0, 4.0])

strengths = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=12).map(matrix)


def test_one_hot() -> None:
    assert hoyer(ONE_HOT) == pytest.approx(1.0)
    assert gini(ONE_HOT) == pytest.approx(1 - 1 / 6)
    assert participation_ratio(ONE_HOT) == pytest.approx(1.0)
    assert mass_share(ONE_HOT) == pytest.approx(1 / 6)


def test_uniform() -> None:
    assert hoyer(UNIFORM) == pytest.approx(0.0, abs=1e-12)
    assert gini(UNIFORM) == pytest.approx(0.0, abs=1e-12)
    assert participation_ratio(UNIFORM) == pytest.approx(12.0)
    assert mass_share(UNIFORM) == pytest.approx(1.0)


def test_four_entries_by_hand() -> None:
    assert hoyer(BY_HAND) == pytest.approx((2 - 10 / sqrt(30)) / (2 - 1))
    assert gini(BY_HAND) == pytest.approx((-3 * 1 - 1 * 2 + 1 * 3 + 3 * 4) / (4 * 10))
    assert participation_ratio(BY_HAND) == pytest.approx(100 / 30)
    assert mass_share(BY_HAND) == 1.0
    assert mass_share(BY_HAND, mass=0.4) == 0.25
    assert mass_share(BY_HAND, mass=0.41) == 0.5
    assert mass_share(BY_HAND, mass=0.9) == 0.75


def test_mass_share_of_a_hundred_entries() -> None:
    strong = torch.full((10, 10), 1e-6, dtype=torch.float64)
    strong[3, :4] = 1.0
    assert mass_share(strong) == pytest.approx(0.04)
    assert mass_share(torch.ones(10, 10, dtype=torch.float64)) == pytest.approx(0.99)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_matrix_of_zeros_has_no_sparsity(measure: Measure) -> None:
    assert isnan(measure(torch.zeros(2, 3, dtype=torch.float64)))


@pytest.mark.parametrize("measure", MEASURES)
def test_no_entries_have_no_sparsity(measure: Measure) -> None:
    assert isnan(measure(torch.zeros(0, 3, dtype=torch.float64)))


def test_a_single_edge_holds_all() -> None:
    edge = torch.tensor([[2.0]], dtype=torch.float64)
    assert (mass_share(edge), participation_ratio(edge), gini(edge)) == (1.0, 1.0, 0.0)


@given(edges=strengths)
def test_measures_are_their_definitions(edges: Tensor) -> None:
    values = sorted(edges.flatten().tolist())
    n, total, square = len(values), sum(values), sum(value**2 for value in values)
    assert hoyer(edges) == pytest.approx((sqrt(n) - total / sqrt(square)) / (sqrt(n) - 1), abs=1e-9)
    assert participation_ratio(edges) == pytest.approx(total**2 / square)
    mean_difference = sum(abs(a - b) for a in values for b in values) / n**2
    assert gini(edges) == pytest.approx(mean_difference / (2 * total / n), abs=1e-9)
    held, needed = 0.0, 0
    while held < 0.99 * total * (1 - 1e-12):
        needed += 1
        held += values[-needed]
    assert mass_share(edges) == pytest.approx(needed / n)


@given(edges=strengths)
def test_bounds(edges: Tensor) -> None:
    n = edges.numel()
    assert -1e-9 <= hoyer(edges) <= 1 + 1e-9
    assert -1e-9 <= gini(edges) <= 1 - 1 / n + 1e-9
    assert 1 - 1e-9 <= participation_ratio(edges) <= n * (1 + 1e-9)
    assert 1 / n <= mass_share(edges) <= 1


@given(edges=strengths, scale=st.sampled_from([2.0**-40, 2.0**-3, 2.0**30]), seed=st.integers(0, 100))
def test_neither_scale_nor_order_matters(edges: Tensor, scale: float, seed: int) -> None:
    order = torch.randperm(edges.numel(), generator=torch.Generator().manual_seed(seed))
    other = scale * edges.flatten()[order][None]
    for measure in MEASURES:
        assert measure(other) == pytest.approx(measure(edges), abs=1e-9)


@given(edges=strengths, zeros=st.integers(1, 10))
def test_more_zeros_are_sparser(edges: Tensor, zeros: int) -> None:
    padded = torch.cat([edges, edges.new_zeros(1, zeros)], dim=1)
    assert hoyer(padded) > hoyer(edges) - 1e-12
    assert gini(padded) > gini(edges) - 1e-12
    assert mass_share(padded) < mass_share(edges)
    assert participation_ratio(padded) == pytest.approx(participation_ratio(edges))
