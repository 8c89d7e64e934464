"""Figures of a report: of one setting its methods' graphs, curves and spectra; of a model its swept keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from experiments.config.scores import ACCURACY
from experiments.figures.groups import group_label
from experiments.figures.of_run import ablation_curves, shown_edges
from experiments.pipeline.feature_table import FeatureTable
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.overview import MainMeasures, RunsOfModel, keys_together, runs_by_option, swept_runs
from experiments.reporting.section_text import score_of
from libcore.graph import InteractionGraph

Figures = dict[str, str]
"""Addresses relative to the report, by caption."""


NAMES_AS_THEY_ARE: dict[Any, Any] = {"text.parse_math": False}
"""A method's or a model's name may hold a `$`."""


@matplotlib.rc_context(NAMES_AS_THEY_ARE)
def draw_setting(runs: Sequence[FinishedRun], out: Path, stem: str) -> Figures:
    """Graphs of the first run of each method, curves and spectra of all runs."""
    from experiments.figures.importance_spectrum import Spectrum, importance_figure, spectra_of

    drawn: Figures = {}
    spectra: list[Spectrum] = []
    panels, keyboards = [], []
    for run in runs:
        graph, table = run.graph(), run.table()
        if graph is None:
            continue
        spectra += spectra_of(graph, run.method, run.label)
        if run.label == runs[0].label and table is not None and graph.edges:
            panel, keyboard = graph_panels(run, graph, table)
            panels.append(panel)
            keyboards.append(keyboard)
    if panels:
        drawn |= draw_graphs(panels, keyboards, out, stem)
    drawn |= draw_ablations(runs, out, stem)
    if spectra:
        drawn["Importance spectra"] = keep(importance_figure(spectra), out, f"importance_spectrum{stem}")
    return drawn


def graph_panels(run: FinishedRun, graph: InteractionGraph, table: FeatureTable) -> tuple[Any, Any]:
    """One run's part of the graphs' figure and of the communities'."""
    from experiments.figures.communities import CommunityPanel
    from experiments.figures.interaction_graph import GraphPanel

    title = f"{group_label(run.method)}, {run.label}"
    modularity = run.metrics.get("graph/modularity")
    return GraphPanel(title, graph, table, shown_edges(graph, run.ablations())), CommunityPanel(
        title, graph, table, modularity
    )


def draw_graphs(panels: Sequence[Any], keyboards: Sequence[Any], out: Path, stem: str) -> Figures:
    """Graphs and communities."""
    from experiments.figures.communities import community_figure
    from experiments.figures.interaction_graph import interaction_graph_figure

    return {
        "Interaction graphs": keep(interaction_graph_figure(panels), out, f"interaction_graph{stem}"),
        "Communities of features": keep(community_figure(keyboards), out, f"communities{stem}"),
    }


def draw_ablations(runs: Sequence[FinishedRun], out: Path, stem: str) -> Figures:
    """Scores against what is kept, where any run ablated."""
    from experiments.figures.ablation_curves import AblationKind, ablation_figure

    captions: dict[AblationKind, str] = {"node": "Score against kept features", "edge": "Score against kept edges"}
    found = [(run, ablations) for run in runs if (ablations := run.ablations()) is not None]
    drawn: Figures = {}
    for kind, caption in captions.items():
        curves = [
            curve
            for run, ablations in found
            for curve in ablation_curves(ablations, run.method, run.label)[kind]
            if len(curve.points()[0])
        ]
        if curves:
            figure = ablation_figure(curves, kind, score_of(runs) or ACCURACY)
            drawn[caption] = keep(figure, out, f"{kind}_ablation{stem}")
    return drawn


@matplotlib.rc_context(NAMES_AS_THEY_ARE)
def draw_swept_keys(model: RunsOfModel, main: MainMeasures, out: Path, stem: str) -> Figures:
    """One figure for each key that differs between a model's settings, and for each option between a method's runs.

    Keys that took their values together, as where runs of two experiments meet, share the figure of the first.
    """
    from experiments.figures.hyperparameters import hyperparameter_figure

    together = keys_together(model)
    by_key = dict.fromkeys(together, swept_runs(model, main))
    by_key |= {key: runs_by_option(model, main, key) for key in model.option_keys}
    drawn: Figures = {}
    for key, runs in by_key.items():
        if any(run.measures for run in runs):
            name = f"sweep_{re.sub(r'[^A-Za-z0-9_.-]', '_', key)}{stem}"
            also = f", and with it {', '.join(together[key])}" if together.get(key) else ""
            drawn[f"Against {key}{also}"] = keep(hyperparameter_figure(runs, key, main.names()), out, name)
    return drawn


def keep(figure: Any, out: Path, name: str) -> str:
    """Write a figure; its address."""
    from experiments.figures.saving import save_figure

    return f"figures/{save_figure(figure, out / 'figures', name)[0].name}"
