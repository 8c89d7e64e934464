"""Ablations and Fourier labels as the paper's public code writes them, in our names."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from experiments.pipeline.metric_keys import plain
from libcore.messages import one_line
from libcore.regular_files import regular_text
from models.errors import UserError

EDGES, NODES = "edge_ablation_results.json", "rib_ablation_results.json"
TERM = re.compile(r"(\d+)% (.+)")


def ablations_of(folder: Path, name: str, layers: Mapping[str, str]) -> dict[str, Any] | None:
    """`ablations.json` of an experiment, from its two files; None where there is neither.

    An experiment of node ablations has `node_` before its method. Raises UserError for a file that is something else.
    """
    found: dict[str, Any] = {}
    for kind, path in (("node", folder / f"{node_experiment(name)}_{NODES}"), ("edge", folder / f"{name}_{EDGES}")):
        if not path.is_file():
            continue
        try:
            content = json.loads(regular_text(path))
            found["test_score"] = content["no_ablation_result"]
            found[f"{kind}_ablation"] = {layers[layer]: scores for layer, scores in content["results"].items()}
            if kind == "edge":
                tolerance = plain(content["config"]["schedule"]["score_target_difference"])
                found["edges_needed"] = {
                    layers[layer]: {tolerance: needed} for layer, needed in content["n_edges_required"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: {one_line(error)}; expected a published ablation") from error
    return found or None


def node_experiment(name: str) -> str:
    """`modular_arithmetic_rib_seed0` -> `modular_arithmetic_node_rib_seed0`."""
    return re.sub(r"_([a-z]+)_(seed\d+)$", r"_node_\1_\2", name)


def labels_of(path: Path, node_layers: Sequence[str]) -> dict[str, list[list[dict[str, Any]]]] | None:
    """Of every node layer's features, terms with their shares, the largest first; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        rows = list(csv.reader(StringIO(regular_text(path), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: {one_line(error)}; expected published labels") from error
    if len(rows) > len(node_layers):
        raise UserError(f"{path}: {len(rows)} rows; expected one for each of {', '.join(node_layers)}")
    return {layer: [terms(cell) for cell in row if cell] for layer, row in zip(node_layers, rows, strict=False)}


def terms(cell: str) -> list[dict[str, Any]]:
    """`51% cos(15x)|34% cos(18x)`; a logit has a name in place of shares."""
    parts = [(part.strip(), TERM.fullmatch(part.strip())) for part in cell.split("|")]
    return [
        {"share": 1.0, "term": part} if match is None else {"share": int(match[1]) / 100, "term": match[2]}
        for part, match in parts
        if part
    ]
