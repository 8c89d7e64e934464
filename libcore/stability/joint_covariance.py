"""Covariances within and between two sets of features: all that is known of how alike they are.

Features are compared as functions of the input, by their values' correlation: the cosine between columns of `to_basis`
in the inner product of the activations' covariance `G`, `c^T G c'`. A feature's scale drops out of it, and so does any
change of the activations' coordinates `f A` (columns become `A^-1 c`, the covariance `A^T G A`): whitened or not, a
basis is compared the same. The bare cosine of columns would be that of directions that carry the least variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis

EPS = torch.finfo(torch.float64).eps
LEAST_DEVIATION = EPS**0.5
"""Of the largest standard deviation: what round-off leaves of a feature that does not vary is no variance."""


@dataclass(frozen=True)
class JointCovariance:
    """Of two sets of features over the same inputs, float64.

    Attributes:
        first: within the first set.
        second: within the second.
        cross: between them.
        n_values: that it was taken over, where that is known: fewer of them than directions leave so many less one.
    """

    first: Float[Tensor, "k k"]
    second: Float[Tensor, "l l"]
    cross: Float[Tensor, "k l"]
    n_values: int | None = None

    @classmethod
    def of_bases(cls, gram: Float[Tensor, "d d"], first: Basis, second: Basis) -> JointCovariance:
        """All features of two bases of the same activations, whose centred Gram is `gram`.

        The constant coordinate, which does not vary, is taken out. Raises ValueError for a basis of another width.
        """
        covariance = gram.double().clone()
        for basis in (first, second):
            if basis.d != len(covariance):
                raise ValueError(f"a basis of {basis.d} coordinates for activations of {len(covariance)}")
        if first.has_constant:
            covariance[-1], covariance[:, -1] = 0.0, 0.0
        one, other = first.to_basis.double(), second.to_basis.double()
        return cls(one.T @ covariance @ one, other.T @ covariance @ other, one.T @ covariance @ other)

    def of_features(self, first: Sequence[int] | slice, second: Sequence[int] | slice) -> JointCovariance:
        """Of some features of either set."""
        parts = self.first[first][:, first], self.second[second][:, second], self.cross[first][:, second]
        return JointCovariance(*parts, self.n_values)

    def correlations(self) -> Float[Tensor, "k l"]:
        """Pearson correlation of every feature with every other; zero of one without variance."""
        deviations = [matrix.diagonal().clamp(min=0).sqrt() for matrix in (self.first, self.second)]
        varies = [deviation > LEAST_DEVIATION * deviation.max() for deviation in deviations]
        product = deviations[0][:, None] * deviations[1]
        correlation = self.cross / product.clamp(min=torch.finfo(torch.float64).tiny)
        return torch.where(varies[0][:, None] & varies[1], correlation, 0.0).clamp(-1, 1)


class JointMoments:
    """Sums over inputs from which a joint covariance comes; for features of two models."""

    def __init__(self, n_first: int, n_second: int) -> None:
        self.n_first = n_first
        self.count = 0
        self.total = torch.zeros(n_first + n_second, dtype=torch.float64)
        self.products = torch.zeros(n_first + n_second, n_first + n_second, dtype=torch.float64)
        self.origin: Tensor | None = None

    def add(self, first: Float[Tensor, "*batch k"], second: Float[Tensor, "*batch l"]) -> None:
        """Values of both sets on the same inputs and positions."""
        values = torch.cat([first, second], -1).flatten(0, -2).double().cpu()
        # About the first inputs' mean: a large constant part would cost the variance its digits.
        self.origin = values.mean(0) if self.origin is None else self.origin
        values = values - self.origin
        self.count += len(values)
        self.total += values.sum(0)
        self.products += values.T @ values

    def covariance(self) -> JointCovariance:
        """Of all that was added. Raises ValueError where that is nothing."""
        if not self.count:
            raise ValueError("no values were added")
        mean, n = self.total / self.count, self.n_first
        whole = self.products / self.count - torch.outer(mean, mean)
        return JointCovariance(whole[:n, :n], whole[n:, n:], whole[:n, n:], self.count)


def covariance_rank(covariance: Float[Tensor, "k k"]) -> int:
    """How many directions vary, but for round-off."""
    eigenvalues = torch.linalg.eigvalsh(covariance)
    return int((eigenvalues > len(eigenvalues) * EPS * eigenvalues[-1]).sum())
