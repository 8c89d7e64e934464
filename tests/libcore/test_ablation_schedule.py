"""Counting evaluations before they are made: bounds that always hold, and that some model reaches."""

from __future__ import annotations

from itertools import combinations

import pytest

from libcore.ablation.schedule import Bracket, bisection_evaluations, halvings


def evaluated_for(needed: tuple[int, ...], upper: int) -> set[int]:
    """Numbers that bisections for these needed counts evaluate together."""
    evaluated: set[int] = set()
    for threshold in needed:
        bracket = Bracket(0, upper)
        while (middle := bracket.middle) is not None:
            evaluated.add(middle)
            bracket = bracket.halved(middle, middle >= threshold)
        assert bracket.enough == threshold
    return evaluated


@pytest.mark.parametrize("n_searches", [1, 2, 3])
@pytest.mark.parametrize("upper", [1, 2, 3, 5, 8, 11, 16, 17, 24, 31])
def test_bisections_ask_for_as_many_numbers_as_counted_at_most(upper: int, n_searches: int) -> None:
    every = [evaluated_for(needed, upper) for needed in combinations(range(1, upper + 1), min(n_searches, upper))]
    assert max(map(len, every)) == bisection_evaluations(upper, n_searches)


def test_a_bisection_s_evaluations_grow_with_the_logarithm() -> None:
    assert [bisection_evaluations(2**exponent) for exponent in range(5)] == [0, 1, 2, 3, 4]
    assert bisection_evaluations(513 * 513) == 19
    assert bisection_evaluations(2**19, 3) == 1 + 2 + 17 * 3


def test_halvings_end_at_one() -> None:
    assert halvings(13) == [6, 3, 1]
    assert halvings(8) == [4, 2, 1]
    assert halvings(1) == halvings(0) == []
