"""`compare.html`: of one setting, its first method's graph beside each other method's, a page for every pair."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.report_figures import Figures
from experiments.reporting.run_files import shown_path

log = logging.getLogger(__name__)


def write_comparison_pages(runs: Sequence[FinishedRun], out: Path, stem: str) -> Figures:
    """The pages' addresses, as seen from `out`, by what they show.

    The first method's first run stands beside the run of each other method that has the same seed and half of the data.
    Runs that do not go together are left out, in a line of the log.
    """
    from experiments.pages.compare_page import side_names, write_compare_page

    first = runs[0]
    others: dict[str, FinishedRun] = {}
    for run in runs:
        if run.method != first.method and run.label == first.label:
            others.setdefault(run.method, run)
    pages: Figures = {}
    for number, other in enumerate(others.values()):
        name = f"compare{stem}{f'.{number + 1}' if number else ''}.html"
        try:
            write_compare_page(out / name, first, other)
        except ValueError as error:
            log.info("no page of %s beside %s: %s", shown_path(first.directory), shown_path(other.directory), error)
            continue
        pages[" beside ".join(side_names(first, other))] = name
    return pages
