"""Exact two-sided tests of paired differences about zero: the sign test and Wilcoxon's of signed ranks."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

TestName = Literal["sign test", "Wilcoxon test"]
WILCOXON_FROM = 6
"""Differences other than zero, below which no exact test of them can give a p below 0.05."""
WILCOXON_UP_TO = 200
"""Differences, above which the sums of ranks are no longer counted out; the sign test stays exact at any number."""


def sign_test(n_less: int, n_more: int) -> float:
    """p of so many negative and positive differences, two-sided; 1 where there is none. Zeros are left out before."""
    if n_less + n_more == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(min(n_less, n_more), n_less + n_more, 0.5)))


def wilcoxon(differences: Float[np.ndarray, " pair"]) -> float:
    """p of Wilcoxon's signed-rank test, two-sided; zeros are left out, equal sizes share the mean of their ranks.

    The null distribution is counted out over all signs of the ranks that there are, so that it is exact with equal
    sizes too: scipy.stats.wilcoxon's exact mode takes ranks 1 ... n.
    """
    differences = differences[differences != 0]
    if len(differences) < 2:
        return 1.0
    from scipy.stats import rankdata

    doubled = np.rint(2 * rankdata(np.abs(differences))).astype(int)
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        shifted = np.concatenate([np.zeros(rank), ways[:-rank]])
        ways = (ways + shifted) / 2
    positive = int(doubled[differences > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return min(1.0, 2.0 * float(tail))


def test_for(n_nonzero: int) -> TestName:
    """Which test the evidence rests on, by the number of differences other than zero alone, never by their values."""
    return "Wilcoxon test" if WILCOXON_FROM <= n_nonzero <= WILCOXON_UP_TO else "sign test"


def smallest_p(n_nonzero: int) -> float:
    """The smallest p that either test can give: all differences of one sign."""
    return min(1.0, 2.0 ** (1 - n_nonzero))
