"""Counting evaluations before they are made: bounds that always hold, and that some model reaches."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcore.ablation.schedule import (
    bisect,
    bisection_evaluations,
    bracketed,
    edge_evaluations_left,
    halvings,
    node_evaluations_left,
)


def asked_for(needed: tuple[int, ...], upper: int) -> set[int]:
    """Numbers that bisections for these needed counts ask for together."""
    asked: set[int] = set()

    def is_enough(kept: int, threshold: int) -> bool:
        asked.add(kept)
        return kept >= threshold

    for threshold in needed:
        assert bisect(partial(is_enough, threshold=threshold), upper) == threshold
    return asked


@pytest.mark.parametrize("n_searches", [1, 2, 3])
@pytest.mark.parametrize("upper", [1, 2, 3, 5, 8, 11, 16, 17, 24, 31])
def test_bisections_ask_for_as_many_numbers_as_counted_at_most(upper: int, n_searches: int) -> None:
    every = [asked_for(needed, upper) for needed in combinations(range(1, upper + 1), min(n_searches, upper))]
    assert max(len(asked) for asked in every) == bisection_evaluations(upper, n_searches)


def test_a_bisection_s_evaluations_grow_with_the_logarithm() -> None:
    assert [bisection_evaluations(2**exponent) for exponent in range(5)] == [0, 1, 2, 3, 4]
    assert bisection_evaluations(513 * 513) == 19
    assert bisection_evaluations(2**19, 3) == 1 + 2 + 17 * 3


def test_halvings_end_at_one() -> None:
    assert halvings(13) == [6, 3, 1]
    assert halvings(8) == [4, 2, 1]
    assert halvings(1) == halvings(0) == []


def test_a_bracket_is_as_narrow_as_what_is_known() -> None:
    assert bracketed(lambda kept: kept >= 5, 16, scored=[]) == (0, 16)
    assert bracketed(lambda kept: kept >= 5, 16, scored=[8]) == (0, 8)
    assert bracketed(lambda kept: kept >= 5, 16, scored=[8, 4, 15]) == (4, 8)
    assert bracketed(lambda kept: kept >= 5, 16) == (4, 5)


def test_a_search_upwards_may_come_to_the_end_and_its_schedule_is_carried_out_in_any_case() -> None:
    assert node_evaluations_left([], [0, 2, 9], searched_to=9) == 10
    assert node_evaluations_left([0, 1], [0, 2, 9], searched_to=9) == 8
    assert node_evaluations_left([0, 1], [0, 2, 9], searched_to=None) == 2
    assert node_evaluations_left([0, 1, 2, 9], [0, 2, 9], searched_to=None) == 0


@given(st.integers(1, 300), st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(0, 60))
def test_what_is_left_of_an_edge_ablation_is_never_less_than_what_comes(
    upper: int, needed: list[int], without_features: int
) -> None:
    """`without_features`: the bracket is wider than there are edges where directions were dropped."""
    needed, n_edges = [min(count, upper) for count in needed], max(1, upper - without_features)
    scored: list[int] = []
    left: list[int] = []

    def is_enough(kept: int, threshold: int) -> bool:
        ask(kept)
        return kept >= threshold

    searches = [partial(is_enough, threshold=count) for count in needed]

    def ask(kept: int) -> None:
        if kept not in scored:
            scored.append(kept)
            left.append(edge_evaluations_left(scored, searches, upper, n_edges))

    most = edge_evaluations_left([], searches, upper, n_edges)
    assert most <= bisection_evaluations(upper, len(needed)) + len(halvings(n_edges))
    for search in searches:
        bisect(search, upper)
    for kept in halvings(min(*needed, n_edges)):
        ask(kept)
    bounds = [most, *(done + to_come for done, to_come in enumerate(left, start=1))]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == len(scored)


def test_an_edge_ablation_can_cost_all_that_is_counted() -> None:
    """Sixteen or seventeen of twenty, of which fifteen are edges: five steps of bisection, then 7, 3, 1."""
    counted = edge_evaluations_left([], [lambda kept: kept >= 17], 20, 15)
    assert len(asked_for((17,), 20) | set(halvings(15))) == counted == 8
