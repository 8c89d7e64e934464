"""How a time grows with a size: a power law fitted to the upper part of the range."""

from __future__ import annotations

import math
from collections.abc import Sequence

UPPER_POINTS = 3
"""At least so many are fitted, and at least half of all; small sizes are overhead."""


def exponent(sizes: Sequence[float | int], seconds: Sequence[float | int]) -> float:
    """Of `seconds ~ size ** exponent`, by least squares of the logarithms.

    Raises ValueError for fewer than two points.
    """
    if len(sizes) < 2 or len(sizes) != len(seconds):
        raise ValueError(f"{len(sizes)} sizes and {len(seconds)} times; expected two or more of either")
    n = min(len(sizes), max(UPPER_POINTS, math.ceil(len(sizes) / 2)))
    x, y = ([math.log(value) for value in values[-n:]] for values in (sizes, seconds))
    mean_x, mean_y = sum(x) / n, sum(y) / n
    across = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / across
