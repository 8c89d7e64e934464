"""The features of a run, one at a time beside a list to browse: `figures/features.html`, one self-contained file.

It shares its parts with `graph.html` (`templates/`) and what it shows comes from `run_data`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from experiments.pages.html_page import write_html_page
from experiments.pages.run_data import RunContent, listed_edges_only, run_data


def write_features_page(path: Path, content: RunContent, graph_page: str | None = None) -> None:
    """Write the page that describes features by their examples; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if it is missing.
        content: features and examples; of edges, where there are any, the page holds each feature's strongest.
        graph_page: address of the interaction graph's page, as seen from this one.

    Raises ValueError as `run_data`.
    """
    listed = replace(content, graph=replace(content.graph, edges=listed_edges_only(content)))
    shown_edges = dict.fromkeys(content.graph.node_layers[:-1], 0)
    data = run_data(replace(listed, shown_edges=shown_edges))
    write_html_page(
        path, "features.html", data, title=content.title, summary=content.summary, other_page=graph_page or ""
    )
