"""A run's pages, written together: what is described of features is the same on both."""

from __future__ import annotations

from pathlib import Path

from experiments.pages.features_page import write_features_page
from experiments.pages.graph_page import write_graph_page
from experiments.pages.run_data import RunContent


def write_pages(folder: Path, content: RunContent, graph_page: str | None, features_page: str | None) -> list[Path]:
    """Those with a name, each with a link to the other where there is one."""
    paths: list[Path] = []
    for page, other, write in (
        (graph_page, features_page, write_graph_page),
        (features_page, graph_page, write_features_page),
    ):
        if page is not None:
            write(folder / page, content, other)
            paths.append(folder / page)
    return paths
