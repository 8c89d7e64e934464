"""Two methods on one model, side by side: `compare.html`, one self-contained file.

Features are matched by their correlation over the data, which follows from the two bases and the activations' Gram
alone. Examples are those that the runs' own `figures/graph.html` hold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxtyping import Float
from torch import Tensor

from experiments.figures.groups import group_label
from experiments.figures.of_run import GRAPH_PAGE, model_label, shown_edges
from experiments.pages.correlations import check_same_activations, feature_correlations, strongest_matches
from experiments.pages.embedded_images import Embedded
from experiments.pages.html_page import read_page_data, write_html_page
from experiments.pages.run_data import FORMAT, RunContent, run_data
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.run_files import DamagedRunError
from libcore.graph import InteractionGraph
from libcore.messages import one_line

MATCHES = 5
"""Features of the other method listed for each, the most correlated first."""


def write_compare_page(path: Path, left: FinishedRun, right: FinishedRun) -> None:
    """Write the page that shows two runs of one model beside each other; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if it is missing.
        left: a run with bases, such as LIB's.
        right: likewise, of the same model on the same examples.

    Raises ValueError, in one line, for a run without bases and for runs of other node layers or activations.
    """
    graphs = [graph_of(run) for run in (left, right)]
    check_same_activations(*graphs)
    correlations = [
        feature_correlations(graphs[0].statistics[layer], graphs[0].bases[layer], graphs[1].bases[layer])
        for layer in graphs[0].node_layers
    ]
    names = side_names(left, right)
    sides = [
        embedded_side(path, names[0], left, graphs[0], correlations),
        embedded_side(path, names[1], right, graphs[1], [one.T for one in correlations]),
    ]
    title = f"{model_label(left.config['model'])}: {names[0]} beside {names[1]}"
    write_html_page(path, "compare.html", {"sides": sides}, title=title, summary={}, other_page="")


def graph_of(run: FinishedRun) -> InteractionGraph:
    """The run's graph. Raises ValueError, in one line, for a run without bases or feature names, or a damaged one."""
    try:
        graph, table = run.graph(), run.table()
    except (DamagedRunError, OSError, ValueError) as error:
        raise ValueError(f"{run.directory}: not readable: {one_line(error)}") from error
    if graph is None or not graph.bases:
        raise ValueError(f"{run.directory}: no bases; expected a run whose stages have them")
    if table is None:
        raise ValueError(
            f"{run.directory}: no features.json; expected a run whose stages have edges, labels or figures"
        )
    return graph


def embedded_side(
    path: Path,
    name: str,
    run: FinishedRun,
    graph: InteractionGraph,
    correlations: list[Float[Tensor, "_ _"]],
) -> Embedded:
    """One run, with each feature's counterparts on the other side and the address of its own page, where it has one."""
    page = run.directory / "figures" / GRAPH_PAGE
    address = quote(os.path.relpath(page.resolve(), path.resolve().parent)) if page.is_file() else None
    matches = [strongest_matches(correlation, MATCHES) for correlation in correlations]
    return {"name": name, "run": data_of(run, graph), "matches": matches, "page": address}


def side_names(left: FinishedRun, right: FinishedRun) -> tuple[str, str]:
    """What tells the two apart: the methods, with seeds where these are the same."""
    one, other = group_label(left.method), group_label(right.method)
    return (f"{one}, {left.label}", f"{other}, {right.label}") if one == other else (one, other)


def data_of(run: FinishedRun, graph: InteractionGraph) -> Embedded:
    """What the run's own page embeds, examples among it; without a page of this format what the run's files hold."""
    try:
        found = read_page_data(run.directory / "figures" / GRAPH_PAGE)
    except (OSError, ValueError):
        found = {}
    if found.get("format") == FORMAT and sizes_of(found) == {
        layer: graph.bases[layer].n_features for layer in graph.node_layers
    }:
        return found
    table = run.table()
    assert table is not None, "graph_of looked"
    return run_data(RunContent(run.method, {}, graph, table, shown_edges(graph, run.ablations())))


def sizes_of(data: dict[str, Any]) -> dict[str, int]:
    """How many features a page's data has, by node layer."""
    return {layer["name"]: len(layer["labels"]) for layer in data["layers"]}
