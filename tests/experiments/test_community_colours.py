"""Communities' looks: one rule for figures and pages, told apart by eye, never repeated in silence."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from experiments.figures.community_colours import COMMUNITY_COLOURS, SMALLER, CommunityLook, community_looks
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable


def cielab(colour: str) -> np.ndarray:
    """Lightness, green-red, blue-yellow under D65."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
    )
    x, y, z = np.cbrt(to_xyz @ linear / np.array([0.95047, 1.0, 1.08883]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def table_of(sizes: dict[int, int]) -> FeatureTable:
    members = [community for community, size in sizes.items() for _ in range(size)]
    return FeatureTable({"a": [""] * len(members)}, {"a": members})


def test_any_two_colours_can_be_told_apart_on_light_and_dark() -> None:
    assert len(COMMUNITY_COLOURS) >= 20
    pages = ["#ffffff", "#14171b"]
    for one, other in combinations([*COMMUNITY_COLOURS, *pages], 2):
        assert np.linalg.norm(cielab(one) - cielab(other)) > 26


def test_the_largest_community_comes_first_and_looks_do_not_repeat() -> None:
    n = 2 * len(COMMUNITY_COLOURS)
    looks = community_looks(table_of({number: 2 for number in range(n)} | {n: 5, n + 1: 3, n + 2: 1, NO_COMMUNITY: 9}))
    own = [look for look in looks.values() if look != SMALLER]
    assert list(looks)[:3] == [n, n + 1, 0]
    assert looks[n] == CommunityLook(COMMUNITY_COLOURS[0], hollow=False)
    assert len(own) == len(set(own)) == n
    assert [number for number, look in looks.items() if look == SMALLER] == [n - 2, n - 1]
    assert NO_COMMUNITY not in looks
    assert n + 2 not in looks, "one feature is no community"


@pytest.mark.parametrize("layers", [1, 3])
def test_sizes_are_counted_over_all_node_layers(layers: int) -> None:
    table = FeatureTable({}, {str(layer): [0, 1, 1] for layer in range(layers)})
    assert list(community_looks(table)) == ([1] if layers == 1 else [1, 0])
