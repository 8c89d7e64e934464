"""Stability as a table for a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.evidence.sentences import short
from experiments.feature_stability.pairs import PairStability
from experiments.reporting.run_files import shown_path
from experiments.reporting.tables import Entry, Table
from libcore.stability.layer import STABLE, LayerStability
from libcore.stability.principal_angles import degrees

MEASURES = {
    "features": lambda layer: layer.n_features,
    "directions": lambda layer: layer.n_directions,
    "mean_match": lambda layer: layer.matching.mean,
    "chance_match": lambda layer: layer.expected.mean_match,
    "share_found": lambda layer: layer.matching.share_above(STABLE),
    "share_found_in_groups": lambda layer: layer.share_in_groups,
    "mean_in_groups": lambda layer: layer.found_in_groups.mean().item(),
    "chance_in_groups": lambda layer: layer.expected_in_groups,
    "grouped": lambda layer: sum(len(group.features) for group in layer.groups if len(group.features) > 1),
    "mean_cosine": lambda layer: layer.cosines.mean().item(),
    "chance_cosine": lambda layer: layer.expected.mean_cosine,
    "median_angle": lambda layer: degrees(layer.cosines).median().item(),
    "largest_angle": lambda layer: degrees(layer.cosines).max().item(),
}
"""Columns of the CSV and keys of the JSON, by what they are of a layer."""
SHOWN = {
    "features": ("features", None),
    "mean match (by chance)": ("mean_match", "chance_match"),
    f"found, over {STABLE:g}": ("share_found", None),
    "found in groups": ("share_found_in_groups", None),
    "in groups": ("grouped", None),
    "spans: mean cosine (by chance)": ("mean_cosine", "chance_cosine"),
    "largest angle": ("largest_angle", None),
}
"""Columns of the table: a measure, and one that stands between brackets."""


def measures_of(layer: LayerStability) -> dict[str, float | int]:
    """Of one node layer."""
    return {name: measure(layer) for name, measure in MEASURES.items()}


def table_of(pair: PairStability) -> Table:
    """A row for each node layer."""
    rows = tuple((Entry(name), *entries_of(measures_of(layer))) for name, layer in pair.layers.items())
    return Table(pair.title, ("node layer", *SHOWN), rows)


def entries_of(measures: Mapping[str, float | int]) -> Iterator[Entry]:
    """The cells of one node layer."""
    for measure, beside in SHOWN.values():
        bracket = "" if beside is None else f" ({short(float(measures[beside]), 2)})"
        yield Entry(f"{short(float(measures[measure]), 2)}{bracket}", measures[measure])


def to_csv(pairs: Sequence[PairStability]) -> str:
    """A row for each pair of runs and node layer."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["first", "second", "inputs", "layer", *MEASURES])
    for pair in pairs:
        runs = [shown_path(run.directory) for run in (pair.first, pair.second)]
        for name, layer in pair.layers.items():
            writer.writerow([*runs, pair.n_examples, name, *measures_of(layer).values()])
    return buffer.getvalue()


def to_json(pairs: Sequence[PairStability]) -> list[dict[str, Any]]:
    """The same with every feature's match and every group's angles; features count from 0, the constant left out."""
    return [
        {
            "first": {"directory": shown_path(pair.first.directory), "title": pair.first.title},
            "second": {"directory": shown_path(pair.second.directory), "title": pair.second.title},
            "inputs": pair.n_examples,
            "sentence": pair.sentence,
            "layers": {name: measures_of(layer) | details_of(layer) for name, layer in pair.layers.items()},
        }
        for pair in pairs
    ]


def details_of(layer: LayerStability) -> dict[str, Any]:
    """Lists of one node layer."""
    return {
        "matches": layer.matching.partners.tolist(),
        "correlations": layer.matching.correlations.tolist(),
        "correlations_in_groups": layer.found_in_groups.tolist(),
        "angles": degrees(layer.cosines).tolist(),
        "groups": list(groups_of(layer)),
    }


def groups_of(layer: LayerStability) -> Iterator[dict[str, Any]]:
    """Those of two features and more."""
    for group in layer.groups:
        if len(group.features) > 1:
            yield {"features": list(group.features), "angles": degrees(group.cosines).tolist()}
