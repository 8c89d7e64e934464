"""What is said of one setting in words, and the table of the runs that it is made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from experiments.config.scores import ACCURACY, Score
from experiments.figures.of_run import FEATURES_PAGE, GRAPH_PAGE
from experiments.reporting.comparison import Comparison
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.run_files import shown_path
from experiments.reporting.tables import NOTHING, Entry, Link, Table
from experiments.reporting.verdicts import tolerances

PAGES = {"graph": GRAPH_PAGE, "features": FEATURES_PAGE}
"""Pages of a run, by what they are called in the table."""


def notes_of(runs: Sequence[FinishedRun], comparison: Comparison, score: Score | None, stem: str) -> tuple[str, ...]:
    """Sentences under the verdicts; names of keys and files stand between backticks."""
    return tuple(note for note in (spread_text(runs, stem), needed_text(comparison, score or ACCURACY)) if note)


def score_of(runs: Sequence[FinishedRun]) -> Score | None:
    """What the runs of one setting were scored by; None where none of them says."""
    return next((ablations.score for run in runs if (ablations := run.ablations()) is not None), None)


def spread_text(runs: Sequence[FinishedRun], stem: str) -> str:
    """What means and standard deviations are taken over."""
    n_runs = max(sum(run.method == method for run in runs) for method in {run.method for run in runs})
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    halves = ", ".join(sorted({run.half for run in runs if run.half is not None}))
    which = f"{'seeds' if ',' in seeds else 'seed'} {seeds}" + (f"; halves of the data: {halves}" if halves else "")
    over = f"{n_runs} {'run' if n_runs == 1 else 'runs'} of a method"
    sentence = f"Mean ± standard deviation over {over} ({which}); the same as numbers in `report{stem}.csv`."
    if "," in halves:
        sentence += " Both halves are tested on the same examples, whose own variation is not in the ±."
    return sentence


def needed_text(comparison: Comparison, score: Score) -> str:
    """What is called needed; nothing where nothing was ablated."""
    counted = sorted(tolerances(comparison, "features") | tolerances(comparison, "edges"))
    if not counted:
        return ""
    listed = ", ".join(f"{tolerance:g}" for tolerance in counted)
    distance = f"{listed} nats per token above" if score.in_nats else f"{listed} {worse(score)}"
    return (
        "`needed`: the fewest features, counted upwards, and the number of edges, found by bisection, that keep a test "
        f"{score.name} at most {distance} the unablated model's."
    )


def worse(score: Score) -> str:
    """On which side of the model's own score an ablated one lies."""
    return "above" if score.lower_is_better else "below"


def runs_table(runs: Sequence[FinishedRun], score: Score | None, out: Path) -> Table:
    """Directory, method, seed and score of every run; its half of the data and its pages, where any run has them."""
    halved = any(run.half is not None for run in runs)
    pages = {id(run): links_of(run, out) for run in runs}
    linked = any(pages.values())
    head = ["run", *(["pages"] if linked else []), "method", "seed", *(["half"] if halved else [])]
    rows: list[tuple[Entry, ...]] = []
    for run in runs:
        value = run.metrics.get("score/test")
        row = [Entry(shown_path(run.directory), is_code=True)]
        row += [Entry("", links=pages[id(run)])] if linked else []
        row += [Entry(run.method), Entry(str(run.seed), run.seed)]
        row += [Entry(run.half or NOTHING.text)] if halved else []
        rows.append((*row, NOTHING if value is None else Entry(f"{value:.4f}", value)))
    return Table("runs", (*head, f"test {score.title if score else 'score'}"), tuple(rows), n_left=3 if linked else 2)


def links_of(run: FinishedRun, out: Path) -> tuple[Link, ...]:
    """To the run's pages that are there, from a report in `out`."""
    return tuple(
        Link(name, address_of(path, out))
        for name, file in PAGES.items()
        if (path := run.directory / "figures" / file).is_file()
    )


def address_of(path: Path, out: Path) -> str:
    """A file's address relative to the report's folder, as a link takes it."""
    try:
        relative = Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_uri()
    return quote(os.fsencode(relative))
