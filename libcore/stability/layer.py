"""Stability of one node layer's leading features, one by one and in groups of nearly equal importance."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.stability.joint_covariance import JointCovariance
from libcore.stability.matching import Chance, Matching, chance, matched, nearest_of
from libcore.stability.principal_angles import principal_cosines, within_span

STABLE = 0.9
"""Correlation above which a feature counts as found again."""
GROUP_WIDTH = 0.1
"""How far, relatively, importances of one group lie below its first."""


@dataclass(frozen=True)
class FeatureGroup:
    """Features of nearly equal importance, which hardly anything tells from mixtures of themselves.

    Attributes:
        features: their numbers among those compared.
        cosines: of the principal angles between their span and that of their matches.
        found: correlation of each with the nearest feature in the span of the matches.
    """

    features: range
    cosines: Float[Tensor, " angle"]
    found: Float[Tensor, " feature"]


@dataclass(frozen=True)
class LayerStability:
    """Leading features of two bases, beside what chance would give.

    Attributes:
        n_directions: directions of the activations that vary.
        matching: one to one.
        cosines: of the principal angles between the spans of all of them.
        groups: every feature is in one, most by themselves.
        expected: by chance, of matches and angles.
    """

    n_directions: int
    matching: Matching
    cosines: Float[Tensor, " angle"]
    groups: tuple[FeatureGroup, ...]
    expected: Chance

    @property
    def n_features(self) -> int:
        """How many were compared."""
        return len(self.matching.correlations)

    @property
    def found_in_groups(self) -> Float[Tensor, " feature"]:
        """Correlation of each feature with the nearest one in the span of its group's matches."""
        return torch.cat([group.found for group in self.groups])

    @property
    def share_in_groups(self) -> float:
        """Share of the features that are found again, if not by themselves then in their group."""
        return (self.found_in_groups > STABLE).double().mean().item()

    @property
    def expected_in_groups(self) -> float:
        """Mean of `found_in_groups` by chance: a group of g among n directions holds √(g / n) of any one."""
        sizes = [len(group.features) for group in self.groups]
        return sum(size * sqrt(min(1.0, size / self.n_directions)) for size in sizes) / sum(sizes)


def layer_stability(
    covariance: JointCovariance,
    importance: Float[Tensor, " feature"],
    n_directions: int,
    group_width: float = GROUP_WIDTH,
) -> LayerStability:
    """Of two sets of equally many features.

    Args:
        covariance: of the features, constants left out.
        importance: the first set's, in its order.
        n_directions: directions of the activations that vary.
        group_width: how far, relatively, importances of one group lie below its first.

    Raises ValueError for sets of other sizes, or importances of other features.
    """
    n, m = covariance.cross.shape
    if n != m or len(importance) != n:
        raise ValueError(f"{n} and {m} features, and {len(importance)} importances; expected as many of each")
    if covariance.n_values is not None:
        n_directions = min(n_directions, covariance.n_values - 1)
    matching = matched(covariance.correlations())
    groups = tuple(group_of(covariance, matching, members) for members in groups_by_importance(importance, group_width))
    expected = chance(n, n, max(n_directions, n))
    return LayerStability(n_directions, matching, principal_cosines(covariance), groups, expected)


def found_again(covariance: JointCovariance, importance: Float[Tensor, " feature"]) -> Float[Tensor, " feature"]:
    """Correlation of each feature of the first set with the span of the nearest ones of its group's, cheaply."""
    nearest = nearest_of(covariance.correlations())
    return torch.cat([group_of(covariance, nearest, members).found for members in groups_by_importance(importance)])


def groups_by_importance(importance: Float[Tensor, " feature"], width: float = GROUP_WIDTH) -> list[range]:
    """Neighbours whose importances lie at most so far, relatively, below that of the group's first."""
    groups: list[range] = []
    values = importance.tolist()
    for index, value in enumerate(values):
        if groups and value >= (1 - width) * values[groups[-1].start]:
            groups[-1] = range(groups[-1].start, index + 1)
        else:
            groups.append(range(index, index + 1))
    return groups


def group_of(covariance: JointCovariance, matching: Matching, members: range) -> FeatureGroup:
    """A group beside its features' matches."""
    of_group = covariance.of_features(list(members), matching.partners[list(members)].tolist())
    return FeatureGroup(members, principal_cosines(of_group), within_span(of_group))
