"""Features of two sets matched one to one, and how well random ones would match."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.stability.principal_angles import principal_cosines_of_directions

N_DRAWS = 5
"""Pairs of random bases that chance is the mean of."""


@dataclass(frozen=True)
class Matching:
    """The one-to-one matching with the largest sum of correlations' magnitudes.

    Attributes:
        partners: of each feature of the first set, the number of its match; -1 where the second set has fewer.
        correlations: magnitudes; 0 without a match.
    """

    partners: Int[Tensor, " feature"]
    correlations: Float[Tensor, " feature"]

    def share_above(self, threshold: float) -> float:
        """Of the features matched."""
        matched = self.correlations[self.partners >= 0]
        return (matched > threshold).double().mean().item()

    @property
    def mean(self) -> float:
        """Over the features matched."""
        return self.correlations[self.partners >= 0].mean().item()


def matched(correlations: Float[Tensor, "k l"]) -> Matching:
    """By the Hungarian method, on magnitudes: a feature's sign is a convention. NaN counts as no correlation."""
    from scipy.optimize import linear_sum_assignment

    magnitudes = correlations.abs().nan_to_num(0.0)
    rows, columns = linear_sum_assignment(magnitudes.numpy(), maximize=True)
    partners = torch.full((len(magnitudes),), -1)
    partners[rows] = torch.from_numpy(columns)
    found = torch.zeros(len(magnitudes), dtype=torch.float64)
    found[rows] = magnitudes[rows, columns].double()
    return Matching(partners, found)


def nearest_of(correlations: Float[Tensor, "k l"]) -> Matching:
    """Every feature of the first set with the one it is correlated with the most, which several may share."""
    found, partners = correlations.abs().nan_to_num(0.0).max(1)
    return Matching(partners, found.double())


@dataclass(frozen=True)
class Chance:
    """What is expected of bases that have nothing in common.

    Attributes:
        mean_match: mean correlation of matched features.
        mean_cosine: mean cosine of the principal angles between their spans.
    """

    mean_match: float
    mean_cosine: float


def chance(n_first: int, n_second: int, n_directions: int, seed: int = 0) -> Chance:
    """Of uncorrelated features, drawn at random among so many directions that vary; the mean of a few draws.

    Raises ValueError for more features than directions.
    """
    if max(n_first, n_second) > n_directions:
        raise ValueError(f"{max(n_first, n_second)} uncorrelated features among {n_directions} directions")
    generator = torch.Generator().manual_seed(seed)
    matches: list[float] = []
    cosines: list[float] = []
    for _ in range(N_DRAWS):
        # A random basis beside a fixed one is as good as two random ones.
        drawn = torch.randn(n_directions, n_second, generator=generator, dtype=torch.float64)
        between = torch.linalg.qr(drawn).Q[:n_first]
        matches.append(matched(between).mean)
        cosines.append(principal_cosines_of_directions(between).mean().item())
    return Chance(sum(matches) / N_DRAWS, sum(cosines) / N_DRAWS)
