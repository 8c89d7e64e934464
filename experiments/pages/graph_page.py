"""The interactive interaction graph of one run: `figures/graph.html`, one file that needs nothing else.

What the page shows and how it behaves is in `templates/`; what it shows comes from `run_data`.
"""

from __future__ import annotations

from pathlib import Path

from experiments.pages.html_page import write_html_page
from experiments.pages.run_data import RunContent, run_data


def write_graph_page(path: Path, content: RunContent, features_page: str | None = None) -> None:
    """Write the page that shows a run's graph; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if it is missing.
        content: the graph with what is known of its features. Of each layer pair the page holds the
            `MAX_EDGES_PER_PAIR` strongest edges above zero and says out of how many.
        features_page: address of the features' page, as seen from this one.

    Raises ValueError as `run_data`.
    """
    data = run_data(content)
    write_html_page(
        path, "graph.html", data, title=content.title, summary=content.summary, other_page=features_page or ""
    )
