"""Principal angles between the spans of two sets of features: canonical correlations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.stability.joint_covariance import EPS, JointCovariance


def principal_cosines(covariance: JointCovariance) -> Float[Tensor, " angle"]:
    """Cosines, descending, as many as the smaller span has dimensions: 1 of a direction that both spans have.

    In the inner product of the covariance they are canonical correlations. Nothing depends on how features are scaled
    or mixed within either set.
    """
    one, other = whitening(covariance.first), whitening(covariance.second)
    return principal_cosines_of_directions(one.T @ covariance.cross @ other)


def principal_cosines_of_directions(between: Float[Tensor, "k l"]) -> Float[Tensor, " angle"]:
    """From the inner products of two orthonormal sets."""
    return torch.linalg.svdvals(between).clamp(max=1.0)


def degrees(cosines: Float[Tensor, " angle"]) -> Float[Tensor, " angle"]:
    """The angles themselves; below 1e-6 a cosine does not tell them from 0."""
    return torch.rad2deg(torch.arccos(cosines.clamp(-1.0, 1.0)))


def within_span(covariance: JointCovariance) -> Float[Tensor, " feature"]:
    """Correlation of each feature of the first set with the nearest one in the second's span: multiple correlation."""
    explained = (covariance.cross @ whitening(covariance.second)).square().sum(1)
    variance = covariance.first.diagonal()
    return (explained / variance.clamp(min=torch.finfo(torch.float64).tiny)).sqrt().clamp(0.0, 1.0)


def whitening(covariance: Float[Tensor, "k k"]) -> Float[Tensor, "k r"]:
    """Mixes features into uncorrelated ones of variance 1; directions that do not vary but for round-off are left out.

    Features are scaled to variance 1 before: one that varies little counts like any other.
    """
    scale = covariance.diagonal().clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance * torch.outer(scale, scale))
    kept = eigenvalues > len(eigenvalues) * EPS * eigenvalues[-1]
    return scale[:, None] * vectors[:, kept] * eigenvalues[kept].rsqrt()
