"""The features of a run, one at a time beside a list to browse: `figures/features.html`, one self-contained file.

It shares its parts with `graph.html` (`templates/`) and what it shows comes from `run_data`.
"""

from __future__ import annotations

from pathlib import Path

from experiments.pages.html_page import write_html_page
from experiments.pages.run_data import RunContent, listed_data


def write_features_page(path: Path, content: RunContent, graph_page: str | None = None) -> None:
    """Write the page that describes features by their examples; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if it is missing.
        content: features and examples; of edges, where there are any, the page holds each feature's strongest.
        graph_page: address of the interaction graph's page, as seen from this one.

    Raises ValueError as `run_data`.
    """
    data = listed_data(content)
    write_html_page(
        path, "features.html", data, title=content.title, summary=content.summary, other_page=graph_page or ""
    )
