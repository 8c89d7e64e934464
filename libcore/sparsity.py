"""How sparse the interactions of one layer pair are, without ablating anything (METHOD.md 4).

All take squared strengths `[k_next, k]` without the constant's row and column, and do not depend on the edges' scale.
An edge matrix of zeros has no sparsity: NaN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def mass_share(edges: Float[Tensor, "feature_out feature_in"], mass: float = 0.99) -> float:
    """Share of the entries, strongest first, that holds `mass` of the sum; small is sparse."""
    strongest = edges.flatten().sort(descending=True).values
    held = strongest.cumsum(0)
    if not len(held) or held[-1] <= 0:
        return float("nan")
    needed = int(torch.searchsorted(held, mass * held[-1])) + 1
    return min(needed, len(held)) / len(held)


def hoyer(edges: Float[Tensor, "feature_out feature_in"]) -> float:
    """`(sqrt(n) - |E|_1 / |E|_2) / (sqrt(n) - 1)`: 0 for equal entries, 1 for a single one (Hoyer 2004)."""
    flat = edges.flatten()
    root = len(flat) ** 0.5
    norm = flat.norm()
    if len(flat) < 2 or norm <= 0:
        return float("nan")
    return ((root - flat.sum() / norm) / (root - 1)).item()


def gini(edges: Float[Tensor, "feature_out feature_in"]) -> float:
    """Gini coefficient of the entries: 0 for equal entries, `1 - 1/n` for a single one."""
    ascending = edges.flatten().sort().values
    n, total = len(ascending), edges.sum()
    if n == 0 or total <= 0:
        return float("nan")
    rank = torch.arange(1, n + 1, dtype=ascending.dtype, device=ascending.device)
    return (((2 * rank - n - 1) * ascending).sum() / (n * total)).item()


def participation_ratio(edges: Float[Tensor, "feature_out feature_in"]) -> float:
    """`(sum E)^2 / sum E^2`: how many edges take part, between 1 and their number."""
    square_sum = edges.square().sum()
    if square_sum <= 0:
        return float("nan")
    return (edges.sum().square() / square_sum).item()
