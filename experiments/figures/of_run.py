"""A run's figures and its pages, `graph.html` and `features.html`; choices of what is shown that the report shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from experiments.config.model_titles import model_title
from experiments.config.schema import RunConfig
from experiments.figures.groups import group_label, group_of
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.feature_table import FeatureTable
from experiments.pipeline.metrics import Metrics
from libcore.estimators.signed import SignedEdges
from libcore.graph import InteractionGraph
from models.analysed import FeaturePicture, TokenContexts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRAPH_PAGE = "graph.html"
FEATURES_PAGE = "features.html"
PAGES = (GRAPH_PAGE, FEATURES_PAGE)
"""Each names the other by this address."""

EDGES_WITHOUT_ABLATION = 100
"""Strongest edges of a layer pair that are shown at first when no ablation says how many are needed."""


def draw_figures(
    folder: Path,
    config: RunConfig,
    graph: InteractionGraph,
    table: FeatureTable,
    ablations: Ablations | None,
    metrics: Metrics,
    pictures: dict[str, list[FeaturePicture]] | None,
    contexts: TokenContexts | None,
    score_name: str,
    signed: dict[str, SignedEdges] | None = None,
) -> dict[str, Path]:
    """Write everything that the finished stages allow; paths by file name."""
    # matplotlib takes half a second to import, which a run without figures need not spend.
    from experiments.figures.ablation_curves import ablation_figure
    from experiments.figures.communities import CommunityPanel, community_figure
    from experiments.figures.contact_sheets import contact_sheet_figure
    from experiments.figures.importance_spectrum import importance_figure, spectra_of
    from experiments.figures.interaction_graph import GraphPanel, interaction_graph_figure
    from experiments.figures.saving import save_figure
    from experiments.figures.two_processes import Drawing, carry_out
    from experiments.pages.run_data import RunContent
    from experiments.pages.run_pages import write_pages

    drawings: list[Drawing] = []

    def draw(name: str, figure_of: Callable[..., Figure], *arguments: object) -> None:
        drawings.append(lambda: save_figure(figure_of(*arguments), folder, name))

    method, run = group_of(config.method.model_dump()), run_label(config.seed, config.analysis.half)
    draw("importance_spectrum", importance_figure, spectra_of(graph, method, run))
    if ablations is not None:
        for kind, of_kind in ablation_curves(ablations, method, run).items():
            if of_kind:
                draw(f"{kind}_ablation", ablation_figure, of_kind, kind, ablations.score)
    shown = shown_edges(graph, ablations)
    if graph.edges:
        title = f"{model_label(config.model.model_dump())}, {group_label(method)}, {run}"
        draw("interaction_graph", interaction_graph_figure, [GraphPanel(title, graph, table, shown)])
        draw("communities", community_figure, [CommunityPanel(title, graph, table, metrics.get("graph/modularity"))])
    heading = page_heading(config, metrics, score_name)
    content = RunContent(*heading, graph, table, shown, pictures or {}, contexts, signed or {})
    pages = pages_of(graph, pictures, contexts)
    drawings.append(lambda: write_pages(folder, content, *(page if page in pages else None for page in PAGES)))
    for layer, of_layer in (pictures or {}).items():
        if any(picture.highest for picture in of_layer):
            draw(f"features_{layer}", contact_sheet_figure, layer, of_layer, table.labels[layer])
    return {path.name: path for path in carry_out(drawings)}


def pages_of(
    graph: InteractionGraph, pictures: dict[str, list[FeaturePicture]] | None, contexts: TokenContexts | None
) -> set[str]:
    """The pages that there is something to show on."""
    found = {GRAPH_PAGE} if graph.edges else set()
    pictured = any(
        picture.highest or picture.map is not None for of_layer in (pictures or {}).values() for picture in of_layer
    )
    return found | ({FEATURES_PAGE} if pictured or contexts is not None else set())


def page_heading(config: RunConfig, metrics: Metrics, score_name: str) -> tuple[str, dict[str, str]]:
    """Title of a run's pages, and the lines under it."""
    model, method = config.model.model_dump(), config.method.model_dump()
    summary = {"model": model_title(model), "method": group_of(method), "seed": str(config.seed)}
    if config.analysis.half is not None:
        summary["fitted on"] = f"the {config.analysis.half} half"
    shown = {f"test {score_name}": "score/test", "modularity": "graph/modularity"}
    summary |= {name: f"{metrics[key]:.4f}" for name, key in shown.items() if is_known(metrics.get(key))}
    return f"{model_label(model)}: {config.method.title}", summary


def is_known(value: float | None) -> bool:
    """Whether there is a number to show: a graph without edges has no modularity."""
    return value is not None and math.isfinite(value)


def model_label(model: Mapping[str, Any]) -> str:
    """`cifar10_mlp`, `digits_mlp`; `gpt2` for a model that is chosen by name, the folder's own where that is a path."""
    return PurePath(model.get("name", "")).name or model_title(model)


def run_label(seed: int, half: str | None) -> str:
    """`seed 0`, `seed 0, first half`: how runs are told apart that differ in seed and data only."""
    return f"seed {seed}" + (f", {half} half" if half is not None else "")


def shown_edges(graph: InteractionGraph, ablations: Ablations | None) -> dict[str, int]:
    """Edges shown of each layer pair: as many as the model needs at the tightest tolerance."""
    shown: dict[str, int] = {}
    for layer in graph.edges:
        n_edges = graph.variable_edges(layer).numel()
        curve = ablations.edges.get(layer) if ablations is not None else None
        needed = curve.needed[min(curve.needed)] if curve is not None else EDGES_WITHOUT_ABLATION
        shown[layer] = min(needed, n_edges)
    return shown


def ablation_curves(ablations: Ablations, group: str, run: str) -> dict[str, list[Any]]:
    """Curves as the figures take them, by kind."""
    from experiments.figures.ablation_curves import Curve

    return {
        kind: [
            Curve(group, run, layer, curve.score_by_kept, ablations.test_score, curve.needed)
            for layer, curve in by_layer.items()
        ]
        for kind, by_layer in (("node", ablations.nodes), ("edge", ablations.edges))
    }
