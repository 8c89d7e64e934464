"""What an ablation evaluates, and how much of it can still be to come: counting alone, nothing is evaluated here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence


def kept_schedule(n_features: int, ratio: float = 1.06, dense_until: int = 24) -> list[int]:
    """Numbers of features at which a node-ablation curve is drawn: all small ones, then geometric, then all."""
    schedule, step = list(range(min(n_features, dense_until) + 1)), float(dense_until)
    while (step := max(step * ratio, step + 1)) < n_features:
        schedule.append(int(step))
    return sorted({*schedule, n_features})


def bisect(is_enough: Callable[[int], bool], upper: int) -> int:
    """Smallest number found enough by halving `(0, upper]`, rounding up; `upper` is taken to be enough."""
    return bracketed(is_enough, upper)[1]


def bracketed(is_enough: Callable[[int], bool], upper: int, scored: Collection[int] | None = None) -> tuple[int, int]:
    """The interval `(lower, upper]` that bisection comes to; with `scored`, before it asks for a number not in it."""
    lower = 0
    while upper - lower > 1:
        middle = (lower + upper + 1) // 2
        if scored is not None and middle not in scored:
            break
        lower, upper = (lower, middle) if is_enough(middle) else (middle, upper)
    return lower, upper


def halvings(kept: int) -> list[int]:
    """`kept` halved again and again, rounding down, to one; `kept` itself is not among them."""
    return [kept >> times for times in range(1, kept.bit_length())]


def bisection_evaluations(length: int, n_searches: int = 1) -> int:
    """Most numbers that `n_searches` bisections of one interval of `length` ask for in all, each counted once."""
    evaluations, intervals = 0, Counter({length: 1})
    while intervals := Counter({size: count for size, count in intervals.items() if size > 1}):
        evaluations += min(n_searches, intervals.total())
        halves: Counter[int] = Counter()
        for size, count in intervals.items():
            halves[size // 2] += count
            halves[size - size // 2] += count
        intervals = halves
    return evaluations


def node_evaluations_left(scored: Collection[int], schedule: Sequence[int], searched_to: int | None) -> int:
    """Most evaluations to come in a node ablation.

    `searched_to` is the number of features that the search for the needed ones may go up to, from zero; None once it
    has found them all. The schedule's numbers are evaluated in any case.
    """
    searched = () if searched_to is None else range(searched_to + 1)
    return len({*searched, *schedule}.difference(scored))


def edge_evaluations_left(
    scored: Collection[int], searches: Sequence[Callable[[int], bool]], upper: int, n_edges: int
) -> int:
    """Most evaluations to come in an edge ablation.

    `searches` say for each tolerance whether a number in `scored` is enough; all of them bisect `(0, upper]` and share
    what they find. After them come the halvings of the smallest needed count, which is never above `n_edges`.
    """
    intervals = Counter(bracketed(is_enough, upper, scored) for is_enough in searches)
    to_bisect = sum(bisection_evaluations(high - low, count) for (low, high), count in intervals.items())
    smallest = min((high for _, high in intervals), default=0)
    tail = halvings(min(smallest, n_edges))
    return to_bisect + (len(tail) if to_bisect else len(set(tail).difference(scored)))
