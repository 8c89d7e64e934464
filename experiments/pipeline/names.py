"""Names and communities of features, a stage that is kept like those before it."""

from __future__ import annotations

from experiments.config.schema import RunConfig
from experiments.pipeline.ablations import Ablations
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.cache_entry import StageResult
from experiments.pipeline.console import Advance
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from libcore.ablation import smallest_kept_edge
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.graph import InteractionGraph
from libcore.modularity import Communities, find_communities
from models.analysed import AnalysedModel
from models.content_hashes import stage_key


def names_stage(
    cache: StageCache,
    config: RunConfig,
    last_identity: str,
    graph: InteractionGraph,
    model: AnalysedModel,
    chain: Chain,
    bases: dict[str, Basis],
    ablations: Ablations | None,
) -> tuple[FinishedStage, FeatureTable, Communities | None]:
    """Every kept feature's label, and its community where there are edges.

    `last_identity` is of the last of basis, edges and ablation that the run has.
    """
    depends_on = {"last": last_identity, "communities": config.analysis.communities.model_dump()}

    def compute(_: Advance) -> StageResult:
        labels = model.label_features(chain, bases)
        found = communities_of(config, graph, ablations) if graph.edges else None
        return StageResult(values={"labels": labels, "communities": None if found is None else vars(found)})

    stage = cache.finish("names", stage_key(depends_on, ("libcore", "models")), compute)
    labels, found = stage.result.values["labels"], stage.result.values["communities"]
    communities = None if found is None else Communities(**found)
    nothing = {layer: [NO_COMMUNITY] * basis.n_features for layer, basis in bases.items()}
    return stage, FeatureTable(labels, nothing if communities is None else communities.membership), communities


def communities_of(config: RunConfig, graph: InteractionGraph, ablations: Ablations | None) -> Communities:
    """Leiden with the configured edge weight; `auto` is `log` where an ablation says which are needed, of all."""
    settings = config.analysis.communities
    weight = settings.edge_weight
    if weight == "auto":
        weight = "log" if ablations is not None and config.analysis.ablate.edges is None else "sqrt"
    smallest: dict[str, float] = {}
    if weight == "log" and ablations is not None:
        tightest = min(config.analysis.tolerances or ())
        for layer, curve in ablations.edges.items():
            kept, constant = curve.needed[tightest], graph.bases[layer].has_constant
            smallest[layer] = smallest_kept_edge(graph.edges[layer], kept, constant)
    return find_communities(graph, weight, smallest, settings.resolution, settings.seed)
