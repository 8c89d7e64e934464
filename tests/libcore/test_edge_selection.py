"""Which edges an ablation keeps, and the numbers of features and edges it tries."""

from __future__ import annotations

from itertools import pairwise

import slow_reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from libcore.ablation import smallest_kept_edge, strongest_edges
from libcore.ablation.schedule import Bracket, kept_schedule

edge_matrices = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 0.5]), min_size=width, max_size=width), min_size=1, max_size=4
    )
).map(lambda rows: torch.tensor(rows, dtype=torch.float64))  # fmt: skip


@given(edges=edge_matrices, kept=st.integers(0, 20), has_constant=st.booleans())
def test_strongest_edges_keep_ties_and_the_constant(edges: Tensor, kept: int, has_constant: bool) -> None:
    counted = edges[:, int(has_constant) :].numel()
    mask = strongest_edges(edges, kept, has_constant)
    if counted:
        assert torch.equal(mask, slow_reference.strongest_edges(edges, kept, has_constant))
    assert mask[:, : int(has_constant)].all()
    assert mask[:, int(has_constant) :].sum() >= min(kept, counted)


def test_ties_at_the_threshold_are_kept() -> None:
    edges = torch.tensor([[9.0, 2.0, 1.0], [9.0, 2.0, 3.0]], dtype=torch.float64)
    expected = torch.tensor([[True, True, False], [True, True, True]])
    assert torch.equal(strongest_edges(edges, 2, has_constant=True), expected)
    assert torch.equal(strongest_edges(edges, 3, has_constant=True), expected)
    without_constant = torch.tensor([[True, False, False], [True, False, False]])
    assert torch.equal(strongest_edges(edges, 1, has_constant=False), without_constant)


@given(edges=edge_matrices, kept=st.integers(1, 20))
def test_smallest_kept_edge_is_the_threshold(edges: Tensor, kept: int) -> None:
    smallest = smallest_kept_edge(edges, kept, has_constant=False)
    assert smallest == edges[strongest_edges(edges, kept, has_constant=False)].min().item()


def test_keeping_no_edges_has_no_smallest_one() -> None:
    assert smallest_kept_edge(torch.ones(2, 2, dtype=torch.float64), 0, has_constant=True) == 0.0


def test_the_middle_is_rounded_up_as_in_the_published_code() -> None:
    assert [Bracket(0, enough).middle for enough in range(1, 6)] == [None, 1, 2, 2, 3]


@given(upper=st.integers(1, 300), threshold=st.integers(0, 300))
def test_bisection_finds_the_step_of_a_monotone_score(upper: int, threshold: int) -> None:
    bracket, tried = Bracket(0, upper), []
    while (middle := bracket.middle) is not None:
        tried.append(middle)
        bracket = bracket.halved(middle, middle >= threshold)
    assert bracket.enough == min(max(threshold, 1), upper)
    assert len(tried) <= upper.bit_length()


@given(n=st.integers(1, 3000), dense=st.integers(1, 40))
def test_schedule_has_all_small_numbers_and_the_end(n: int, dense: int) -> None:
    schedule = kept_schedule(n, dense_until=dense)
    assert schedule == sorted(set(schedule))
    assert schedule[0] == 0
    assert schedule[-1] == n
    assert set(range(min(n, dense) + 1)) <= set(schedule)


def test_schedule_steps_grow_with_the_ratio() -> None:
    schedule = [kept for kept in kept_schedule(10_000, ratio=1.1, dense_until=50) if kept >= 100]
    steps = [after / before for before, after in pairwise(schedule)]
    assert max(steps) < 1.11
    assert len(kept_schedule(10_000, ratio=1.1, dense_until=50)) < 120
