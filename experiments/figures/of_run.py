"""A run's figures and its pages, `graph.html` and `features.html`; choices of what is shown that the report shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from experiments.config.model_titles import model_title
from experiments.config.schema import RunConfig
from experiments.figures.groups import group_label, group_of
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.feature_table import FeatureTable
from experiments.pipeline.metrics import Metrics
from libcore.estimators.signed import SignedEdges
from libcore.graph import InteractionGraph
from models.analysed import FeaturePicture, TokenContexts

GRAPH_PAGE = "graph.html"
FEATURES_PAGE = "features.html"
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
    from experiments.figures.importance_spectrum import importance_figure, spectra_of
    from experiments.figures.interaction_graph import GraphPanel, interaction_graph_figure
    from experiments.figures.saving import save_figure
    from experiments.pages.features_page import write_features_page
    from experiments.pages.graph_page import write_graph_page
    from experiments.pages.run_data import RunContent

    method, run = group_of(config.method.model_dump()), run_label(config.seed, config.analysis.half)
    paths = save_figure(importance_figure(spectra_of(graph, method, run)), folder, "importance_spectrum")
    if ablations is not None:
        curves = ablation_curves(ablations, method, run)
        for kind, of_kind in curves.items():
            if of_kind:
                paths += save_figure(ablation_figure(of_kind, kind, ablations.score), folder, f"{kind}_ablation")
    if graph.edges:
        shown = shown_edges(graph, ablations)
        title = f"{model_label(config.model.model_dump())}, {group_label(method)}, {run}"
        panel = GraphPanel(title, graph, table, shown)
        paths += save_figure(interaction_graph_figure([panel]), folder, "interaction_graph")
        keyboard = CommunityPanel(title, graph, table, metrics.get("graph/modularity"))
        paths += save_figure(community_figure([keyboard]), folder, "communities")
    pages = pages_of(graph, pictures, contexts)
    content = RunContent(
        *page_heading(config, metrics, score_name),
        graph,
        table,
        shown_edges(graph, ablations),
        pictures or {},
        contexts,
        signed or {},
    )
    for page, other, write in (
        (GRAPH_PAGE, FEATURES_PAGE, write_graph_page),
        (FEATURES_PAGE, GRAPH_PAGE, write_features_page),
    ):
        if page in pages:
            write(folder / page, content, other if other in pages else None)
            paths.append(folder / page)
    paths += contact_sheets(folder, table, pictures or {})
    return {path.name: path for path in paths}


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
    summary |= {name: f"{metrics[key]:.4f}" for name, key in shown.items() if key in metrics}
    return f"{model_label(model)}: {config.method.title}", summary


def contact_sheets(folder: Path, table: FeatureTable, pictures: dict[str, list[FeaturePicture]]) -> list[Path]:
    """What the first features of every node layer respond to, one figure a layer."""
    from experiments.figures.contact_sheets import contact_sheet_figure
    from experiments.figures.saving import save_figure

    paths: list[Path] = []
    for layer, of_layer in pictures.items():
        if any(picture.highest for picture in of_layer):
            paths += save_figure(
                contact_sheet_figure(layer, of_layer, table.labels[layer]), folder, f"features_{layer}"
            )
    return paths


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


def ablation_curves(ablations: Ablations, group: str, run: str) -> dict:
    """Curves as the figures take them, by kind."""
    from experiments.figures.ablation_curves import Curve

    return {
        kind: [
            Curve(group, run, layer, curve.score_by_kept, ablations.test_score, curve.needed)
            for layer, curve in by_layer.items()
        ]
        for kind, by_layer in (("node", ablations.nodes), ("edge", ablations.edges))
    }
