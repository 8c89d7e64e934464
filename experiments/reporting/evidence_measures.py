"""Measures that methods are compared by: how a comparison is worded, and on which scale it is made."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.evidence.comparison import Scale
from experiments.evidence.sentences import Wording


@dataclass(frozen=True)
class Measure:
    """Counts are compared by their ratio, measures between fixed ends by their difference."""

    scale: Scale
    wording: Wording


def bounded(verb: str, less: str = "a lower", more: str = "a higher") -> Measure:
    """One that is compared by its difference."""
    return Measure("difference", Wording(verb, less, more, "the same"))


def counted(verb: str) -> Measure:
    """One that is compared by its ratio."""
    return Measure("ratio", Wording(verb, "fewer", "more", "as many"))


MEASURES = {
    "features/needed": counted("needs {} features"),
    "edges/needed": counted("needs {} edges"),
    "features/ablation_area": Measure(
        "ratio", Wording("loses {} score to ablated features", "less", "more", "as much")
    ),
    "edges/ablation_area": Measure("ratio", Wording("loses {} score to ablated edges", "less", "more", "as much")),
    "edges/mass99": Measure(
        "ratio", Wording("has 99 % of its edges' mass in {} share of entries", "a smaller", "a larger", "the same")
    ),
    "edges/hoyer": bounded("has {} Hoyer measure of edges"),
    "edges/gini": bounded("has {} Gini coefficient of edges"),
    "edges/participation": counted("has {} participating edges"),
    "graph/modularity": bounded("has {} modularity"),
}
"""By the kind of a metric's key (`parse_metric`), in the order of the tables."""
