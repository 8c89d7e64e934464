"""p of many comparisons, corrected for their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

Correction = Literal["holm", "benjamini-hochberg"]
HOLM: Correction = "holm"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p, in the given order: bounds the chance of any false claim, however the tests depend."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(n)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (n - place) * p_values[index]))
        corrected[index] = largest
    return corrected.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p by Benjamini and Hochberg, in the given order: bounds the share of false claims among the claims."""
    if not p_values:
        return []
    from scipy.stats import false_discovery_control

    return false_discovery_control(p_values, method="bh").tolist()


CORRECTIONS: dict[Correction, Callable[[Sequence[float]], list[float]]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
}
TITLES: dict[Correction, str] = {"holm": "Holm", "benjamini-hochberg": "Benjamini and Hochberg"}


def divisor(correction: Correction, n_tests: int) -> int:
    """By how much the level is divided for the smallest p where all `n_tests` are equally small."""
    return n_tests if correction == HOLM else 1
