"""What a report consists of: `report.md`, `report.csv` and figures, one section for each setting that was run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.config.scores import ACCURACY
from experiments.figures.groups import group_label, group_order
from experiments.figures.of_run import ablation_curves, model_label, shown_edges
from experiments.pipeline.json_files import write_text
from experiments.reporting.comparison import Comparison, compare, to_csv
from experiments.reporting.finished_runs import FinishedRun, find_runs, tell_apart
from experiments.reporting.report_text import score_of, setting_text
from models.errors import UserError

log = logging.getLogger(__name__)


@dataclass
class Report:
    """What is printed at the end: short tables by title, and a line for every run without results."""

    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


def write_report(folders: Sequence[Path], out: Path) -> Report:
    """Collect the runs below `folders` and write the report. Raises UserError where none has finished."""
    finished, unfinished = find_runs(folders)
    report = Report(unfinished=[f"{run.directory}: {run.reason}" for run in unfinished])
    if not finished:
        raise UserError(f"no finished run to report on: {'; '.join(report.unfinished)}")
    text = ["# Comparison of interaction bases\n"]
    groups = by_setting(finished)
    for number, runs in enumerate(groups, start=1):
        title = model_label(runs[0].config["model"]) + (f" ({number})" if len(groups) > 1 else "")
        stem = "" if len(groups) == 1 else f"_{number}"
        comparison = compare(runs)
        write_text(out / f"report{stem}.csv", to_csv(comparison))
        text += setting_text(title, stem, runs, comparison, draw(runs, out / "figures", stem))
        report.tables[title] = short_table(comparison)
    if report.unfinished:
        text.append("## Runs without results\n")
        text += [f"- `{line}`" for line in report.unfinished]
    write_text(out / "report.md", "\n".join(text) + "\n")
    return report


def by_setting(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Runs that differ in method, seed and half of the data only, together; of equal runs, the latest."""
    latest: dict[tuple[str, str, str, str], FinishedRun] = {}
    for run in sorted(tell_apart(runs), key=lambda run: run.directory.name):
        latest[run.setting(), run.method, run.label, str(run.config["model"].get("checkpoint"))] = run
    groups: dict[str, list[FinishedRun]] = {}
    for run in latest.values():
        groups.setdefault(run.setting(), []).append(run)
    return [sorted(group, key=lambda run: (group_order(run.method), run.seed, run.label)) for group in groups.values()]


def short_table(comparison: Comparison) -> list[list[str]]:
    """The rows that answer the question: score, needed features and edges at the tightest tolerance, modularity."""
    needed = [name for name in comparison.rows if "/needed_" in name]
    tightest = min(
        (name.split("/")[1] for name in needed), key=lambda part: float(part.removeprefix("needed_")), default=""
    )
    names = [
        name
        for name in comparison.rows
        if name.startswith(("score/", "graph/", "edges/hoyer/")) or (tightest and f"/{tightest}/" in name)
    ]
    head = ["", *(f"{group_label(method)} (n={comparison.runs[method]})" for method in comparison.methods)]
    return [head] + [
        [name, *(cell.text() if (cell := comparison.rows[name][method]) else "–" for method in comparison.methods)]
        for name in names
    ]


def draw(runs: Sequence[FinishedRun], folder: Path, stem: str) -> dict[str, str]:
    """Graphs of the first run of each method, curves and spectra of all runs; relative paths by caption."""
    from experiments.figures.ablation_curves import AblationKind, ablation_figure
    from experiments.figures.communities import CommunityPanel, community_figure
    from experiments.figures.importance_spectrum import importance_figure, spectra_of
    from experiments.figures.interaction_graph import GraphPanel, interaction_graph_figure
    from experiments.figures.saving import save_figure

    drawn: dict[str, str] = {}

    def keep(figure, name: str, caption: str) -> None:
        drawn[caption] = f"figures/{save_figure(figure, folder, name + stem)[0].name}"

    graphs = {id(run): graph for run in runs if (graph := run.graph()) is not None}
    panels, keyboards = [], []
    for run in runs:
        graph, table = graphs.get(id(run)), run.table()
        if run.label == runs[0].label and graph is not None and table is not None and graph.edges:
            title = f"{group_label(run.method)}, {run.label}"
            panels.append(GraphPanel(title, graph, table, shown_edges(graph, run.ablations())))
            keyboards.append(CommunityPanel(title, graph, table, run.metrics.get("graph/modularity")))
    if panels:
        keep(interaction_graph_figure(panels), "interaction_graph", "Interaction graphs")
        keep(community_figure(keyboards), "communities", "Communities of features")
    captions: dict[AblationKind, str] = {"node": "Score against kept features", "edge": "Score against kept edges"}
    for kind, caption in captions.items():
        curves = [
            curve
            for run in runs
            if (ablations := run.ablations()) is not None
            for curve in ablation_curves(ablations, run.method, run.label)[kind]
        ]
        if curves:
            keep(ablation_figure(curves, kind, score_of(runs) or ACCURACY), f"{kind}_ablation", caption)
    spectra = [
        spectrum
        for run in runs
        if (graph := graphs.get(id(run))) is not None
        for spectrum in spectra_of(graph, run.method, run.label)
    ]
    if spectra:
        keep(importance_figure(spectra), "importance_spectrum", "Importance spectra")
    return drawn
