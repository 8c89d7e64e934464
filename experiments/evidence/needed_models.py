"""How many models it would take to decide what is undecided."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, pi, sqrt

from experiments.evidence.exact_tests import sign_test, smallest_p

ALPHA = 0.05
"""A corrected p up to here decides."""
POWER = 0.8
FAR = 30.0
"""Standard errors from zero."""
MOST = 1000
"""Models, beyond which no number is given."""


def fewest_models(n_tests: int, alpha: float = ALPHA) -> int:
    """The smallest number of models of which any outcome could decide: all differ in one direction.

    `n_tests` comparisons are corrected together: the smallest p of them is multiplied by their number.
    """
    n = 1
    while smallest_p(n) * n_tests > alpha:
        n += 1
    return n


def models_if_all_agree(n_less: int, n_more: int, n_tests: int, alpha: float = ALPHA) -> int | None:
    """Models in all, those there are included, if every further one agrees with the majority; None above 1,000.

    By the sign test; equal ones count for nothing and are not in the number.
    """
    fewer, more = sorted((n_less, n_more))
    while fewer + more <= MOST:
        if sign_test(fewer, more) * n_tests <= alpha:
            return fewer + more
        more += 1
    return None


def models_at_effect(effect: float | None, n_tests: int, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Models in all that decide in four of five repetitions if the effect is as observed; None above 1,000.

    `effect` is the mean over the standard deviation of the differences (or log-ratios), taken to be normal: power of
    the paired t-test, by the noncentral t, at `alpha / n_tests`; by pi / 3 more for Wilcoxon's test, which needs so
    many more of normal differences, and never fewer than any exact test can decide with.
    """
    if not effect:
        return None
    from scipy.special import nctdtr, stdtrit

    level, size = alpha / n_tests, abs(effect)

    def is_enough(n: int) -> bool:
        # Far out the noncentral t has no value, and the power is one.
        if size * sqrt(n) > FAR:
            return True
        critical = float(stdtrit(n - 1, 1 - level / 2))
        return 1.0 - float(nctdtr(n - 1, size * sqrt(n), critical)) >= power

    n = 2 + bisect_left(range(2, MOST + 1), True, key=is_enough)
    needed = max(ceil(n * pi / 3), fewest_models(n_tests, alpha))
    return needed if needed <= MOST else None
