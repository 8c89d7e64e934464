"""What an ablation evaluates: counting alone, nothing is evaluated here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bracket:
    """Bisection: `too_few` are not enough, `enough` is taken to be."""

    too_few: int
    enough: int

    @property
    def middle(self) -> int | None:
        """The number to be tried next, rounded up; None once `enough` is the smallest that was found to be."""
        return (self.too_few + self.enough + 1) // 2 if self.enough - self.too_few > 1 else None

    def halved(self, middle: int, is_enough: bool) -> Bracket:
        """After `middle` was tried."""
        return Bracket(self.too_few, middle) if is_enough else Bracket(middle, self.enough)

    def from_below(self, tried: Iterable[tuple[int, bool]]) -> Bracket:
        """Between the first of the ascending numbers that is enough and the one before it."""
        bracket = self
        for kept, is_enough in tried:
            bracket = bracket.halved(kept, is_enough)
            if is_enough:
                break
        return bracket


def ladder(upper: int) -> list[int]:
    """The numbers that a bisection of `0 ... upper` asks for while each is enough, ascending.

    `upper` halved, rounded up each time, down to one.
    """
    numbers: list[int] = []
    bracket = Bracket(0, upper)
    while (middle := bracket.middle) is not None:
        numbers.append(middle)
        bracket = bracket.halved(middle, is_enough=True)
    return numbers[::-1]


def kept_schedule(n_features: int, ratio: float = 1.06, dense_until: int = 24) -> list[int]:
    """Numbers of features at which a node-ablation curve is drawn: all small ones, then geometric, then all."""
    schedule, step = list(range(min(n_features, dense_until) + 1)), float(dense_until)
    while (step := max(step * ratio, step + 1)) < n_features:
        schedule.append(int(step))
    return sorted({*schedule, n_features})


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
