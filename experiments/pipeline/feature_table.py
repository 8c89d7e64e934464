"""What is known of each feature beside its basis vector: its label and its community."""

from __future__ import annotations

from dataclasses import dataclass

from libcore.modularity import NO_COMMUNITY

__all__ = ["NO_COMMUNITY", "FeatureTable"]


@dataclass(frozen=True)
class FeatureTable:
    """One entry per kept feature, in the basis's order.

    Attributes:
        labels: by node layer; "constant" for the constant feature.
        communities: by node layer; `NO_COMMUNITY` for the constant and for features without an edge that counts.
    """

    labels: dict[str, list[str]]
    communities: dict[str, list[int]]
