"""How a community looks, in every figure and on every page: one colour and one kind of mark for each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable

COMMUNITY_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#a5c32d", "#871e96",
    "#873c2d", "#5ad2d2", "#c3b469", "#ff3ca5", "#008700", "#b496ff", "#5a5a00", "#ffa587",
    "#1e69ff", "#a5004b", "#00d200", "#a53cf0", "#ff005a", "#ff0fe1", "#3c00ff", "#ff0000",
)  # fmt: skip
"""Okabe and Ito's without black and yellow, then such as lie furthest from all before them in CIELAB and stand out on a
white page and on a black one: any two are 26 apart (a difference of 2 can be seen side by side)."""


@dataclass(frozen=True)
class CommunityLook:
    """A colour, and whether marks in it are hollow: the second round of the colours is."""

    colour: str
    hollow: bool


SMALLER = CommunityLook("#4d4d4d", hollow=False)
"""Of all communities after those with a look of their own."""


def community_sizes(table: FeatureTable) -> Counter[int]:
    """How many features each community of two or more has."""
    sizes = Counter(community for of_layer in table.communities.values() for community in of_layer)
    return Counter({n: size for n, size in sizes.items() if n != NO_COMMUNITY and size > 1})


def community_looks(table: FeatureTable) -> dict[int, CommunityLook]:
    """The look of every community of two or more features, the largest first, equal ones by number."""
    sizes = community_sizes(table)
    by_size = sorted(sizes, key=lambda community: (-sizes[community], community))
    own = [CommunityLook(colour, hollow) for hollow in (False, True) for colour in COMMUNITY_COLOURS]
    return {community: own[rank] if rank < len(own) else SMALLER for rank, community in enumerate(by_size)}
