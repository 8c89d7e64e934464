"""Inputs of the block-diagonal MLP: each block has its own few points, the data are all their combinations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def isotropic_points(
    n_blocks: int, n_points: int, width: int, generator: torch.Generator
) -> Float[Tensor, "block point width"]:
    """Random points with mean zero and covariance exactly the identity in every block, float64.

    Raises ValueError for too few points: `n` points around their mean span `n - 1` directions.
    """
    if n_points <= width:
        raise ValueError(f"{n_points} points per block of width {width}: expected at least {width + 1}")
    points = torch.randn(n_blocks, n_points, width, generator=generator, dtype=torch.float64)
    left, _, right = torch.linalg.svd(points - points.mean(1, keepdim=True), full_matrices=False)
    # The orthogonal factor nearest to the points: as random as they are, and no sign is LAPACK's choice.
    return left @ right * n_points**0.5


def combinations(
    points: Float[Tensor, "block point width"], correlation: float
) -> Float[Tensor, "example block_times_width"]:
    """One row per combination of the blocks' points: blocks are independent in the sample itself, not just on average.

    With a `correlation` above zero, rows in which all blocks take the point of the same number are repeated until they
    make up about that share of all rows. Every block by itself still takes each of its points equally often.
    """
    n_blocks, n_points, _ = points.shape
    index = torch.cartesian_prod(*[torch.arange(n_points, device=points.device)] * n_blocks).reshape(-1, n_blocks)
    repeats = repeats_of_equal(n_blocks, n_points, correlation)
    equal = torch.arange(n_points, device=points.device)[:, None].expand(-1, n_blocks)
    index = torch.cat([index, equal.repeat(repeats - 1, 1)])
    return torch.cat([block[chosen] for block, chosen in zip(points, index.T, strict=True)], dim=1)


def repeats_of_equal(n_blocks: int, n_points: int, correlation: float) -> int:
    """How often a row in which all blocks take the point of the same number occurs, at least once."""
    # r repeats of the n equal rows are a share c of all where r n = c (r n + unequal rows).
    n_unequal = n_points**n_blocks - n_points
    return max(1, round(correlation * n_unequal / (n_points * (1 - correlation))))


def n_combinations(n_blocks: int, n_points: int, correlation: float) -> int:
    """Rows of `combinations`, without making them."""
    return n_points**n_blocks + n_points * (repeats_of_equal(n_blocks, n_points, correlation) - 1)
