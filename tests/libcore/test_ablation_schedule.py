"""Counting evaluations before they are made: bounds that always hold, and that some model reaches."""

from __future__ import annotations

from itertools import combinations

import pytest

from libcore.ablation.schedule import Bracket, bisection_evaluations, ladder


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


@pytest.mark.parametrize("upper", [1, 2, 3, 5, 8, 11, 16, 17, 24, 31, 16900])
def test_a_ladder_is_what_a_bisection_asks_for_where_all_is_enough(upper: int) -> None:
    asked, bracket = [], Bracket(0, upper)
    while (middle := bracket.middle) is not None:
        asked.append(middle)
        bracket = bracket.halved(middle, is_enough=True)
    assert ladder(upper) == sorted(asked)
    assert ladder(upper)[:1] == [1][: upper - 1]


@pytest.mark.parametrize("upper", [1, 2, 3, 5, 8, 11, 16, 17, 24, 31])
def test_bisecting_from_below_finds_what_bisecting_from_above_does(upper: int) -> None:
    for needed in range(1, upper + 1):
        bracket = Bracket(0, upper).from_below((kept, kept >= needed) for kept in ladder(upper))
        asked = []
        while (middle := bracket.middle) is not None:
            asked.append(middle)
            bracket = bracket.halved(middle, middle >= needed)
        assert bracket.enough == needed
        assert set(asked) <= evaluated_for((needed,), upper)


def test_an_unsteady_score_ends_the_way_up_at_the_first_that_is_enough() -> None:
    assert Bracket(0, 16).from_below([(1, False), (2, True), (4, False), (8, True)]) == Bracket(1, 2)
