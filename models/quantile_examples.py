"""Ordinary examples of every feature: such as lie at given quantiles of its activations, between its extremes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def rows_at_quantiles(
    values: Float[Tensor, "row feature"], quantiles: Sequence[float], n: int
) -> Int64[Tensor, "quantile feature n"]:
    """The `n` rows (all, where there are fewer) around each quantile of every feature, in falling order of its values.

    The quantile `q` of `r` sorted rows is row `q (r - 1)`, rounded; at the ends the rows nearest to it are taken.
    """
    order = values.argsort(dim=0, stable=True)
    n = min(n, len(values))
    found = []
    for quantile in quantiles:
        centre = round(quantile * (len(values) - 1))
        start = max(0, min(centre - n // 2, len(values) - n))
        found.append(order[start : start + n].flip(0).T)
    return torch.stack(found)
