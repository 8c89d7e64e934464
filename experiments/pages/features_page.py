"""The features of a language model, one at a time: `figures/features.html`, one file that needs nothing else.

What the page shows and how it behaves is in `templates/features.html`; here contexts become the numbers it embeds.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from experiments.pages.contact_sheet_images import Embedded
from experiments.pages.graph_page import embedded_layer, refuse_non_finite, rounded
from experiments.pages.html_page import write_html_page
from experiments.pipeline.feature_table import FeatureTable
from libcore.graph import InteractionGraph
from models.analysed import Contexts, LayerContexts, LogitEffects, TokenContexts

N_EDGES = 8
"""Strongest edges listed on either side of a feature."""
SHADES = 1000
"""Activations around a token are embedded as integers, this one for the feature's largest magnitude."""


def write_features_page(
    path: Path,
    graph: InteractionGraph,
    table: FeatureTable,
    contexts: TokenContexts,
    title: str,
    summary: dict[str, str] | None = None,
    graph_page: str | None = None,
) -> None:
    """Write the page that describes the features in `contexts`; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if it is missing.
        graph: features and edges, where there are any.
        table: label and community of every feature.
        contexts: of the graph's node layers.
        title: heading.
        summary: lines under the heading, such as model, method and score.
        graph_page: address of the interaction graph's page, as seen from this one.

    Raises ValueError if a node layer has not one label and one community per feature or more contexts than features, or
    if a number is not finite.
    """
    tokens = TokenTable(contexts.vocabulary)
    layers = [
        embedded_layer(graph, table, layer)
        | {"first": contexts.by_layer[layer].first, "features": embedded_features(graph, layer, contexts, tokens)}
        for layer in graph.node_layers
    ]
    data = {"layers": layers, "sequences": tokens.numbered(contexts.tokens), "tokens": tokens.texts}
    data |= {"before": contexts.before, "shades": SHADES}
    write_html_page(path, "features.html", data, title=title, summary=summary or {}, graph_page=graph_page)


class TokenTable:
    """The texts of the tokens that a page shows, each embedded once, in the order in which they are asked for."""

    def __init__(self, vocabulary: tuple[str, ...]) -> None:
        self._vocabulary = vocabulary
        self._numbers: dict[int, int] = {}

    @property
    def texts(self) -> list[str]:
        """By the page's numbers."""
        return [self._vocabulary[token] for token in self._numbers]

    def numbered(self, tokens: Int64[Tensor, "rows columns"]) -> list[list[int]]:
        """The page's numbers of these tokens."""
        return [[self._numbers.setdefault(token, len(self._numbers)) for token in row] for row in tokens.tolist()]


def embedded_features(
    graph: InteractionGraph, layer: str, contexts: TokenContexts, tokens: TokenTable
) -> list[Embedded]:
    """What is shown of each feature that one node layer's contexts describe, in the basis's order."""
    found = contexts.by_layer[layer]
    n = len(found.features)
    if found.features.stop > graph.bases[layer].n_features:
        raise ValueError(
            f"{layer}: contexts of features {found.first} to {found.features.stop - 1}; "
            f"expected at most the {graph.bases[layer].n_features} that there are"
        )
    refuse_non_finite(torch.stack([found.mean, found.standard_deviation]), f"moments of {layer}")
    # An end is its first context's own token: the one after those before it.
    lowest, highest = (end.activations[:, 0, contexts.before] for end in (found.lowest, found.highest))
    refuse_non_finite(torch.stack([lowest, highest]), f"activations of {layer}")
    parts: dict[str, list] = {
        "lowest": rounded(lowest),
        "highest": rounded(highest),
        "mean": rounded(found.mean),
        "deviation": rounded(found.standard_deviation),
        "histogram": found.histogram.tolist(),
        "top": embedded_contexts(found.highest, found, contexts.before),
        "bottom": embedded_contexts(found.lowest, found, contexts.before),
        "incoming": strongest_edges(graph, layer, found, incoming=True),
        "outgoing": strongest_edges(graph, layer, found, incoming=False),
        "effects": embedded_effects(found.effects, tokens) if found.effects is not None else [None] * n,
    }
    return [dict(zip(parts, of_feature, strict=True)) for of_feature in zip(*parts.values(), strict=True)]


def embedded_contexts(contexts: Contexts, of_layer: LayerContexts, before: int) -> list[list[Embedded]]:
    """Of every feature, its contexts: sequence, position, activation there, shades of the tokens around it.

    The window begins `before` tokens earlier or with the sequence.
    """
    ends = torch.stack([of_layer.highest.activations[:, 0, before], of_layer.lowest.activations[:, 0, before]])
    scale = ends.abs().amax(0).clamp(min=torch.finfo(torch.float32).tiny)
    # Beyond a sequence's ends stands NaN, which integers do not have.
    shades = (contexts.activations / scale[:, None, None] * SHADES).nan_to_num(torch.inf).round()
    fields = (contexts.sequences, contexts.positions, contexts.activations[:, :, before], shades)
    return [
        [
            {
                "sequence": sequence,
                "position": position,
                "value": float(f"{value:.4g}"),
                "shades": [int(shade) for shade in window if shade != float("inf")],
            }
            for sequence, position, value, window in zip(*of_feature, strict=True)
        ]
        for of_feature in zip(*(field.tolist() for field in fields), strict=True)
    ]


def embedded_effects(effects: LogitEffects, tokens: TokenTable) -> list[Embedded]:
    """Of every feature, tokens and by how much their logits change."""
    parts = (
        tokens.numbered(effects.raised),
        [rounded(values) for values in effects.raised_by],
        tokens.numbered(effects.lowered),
        [rounded(values) for values in effects.lowered_by],
    )
    names = ("raised", "raisedBy", "lowered", "loweredBy")
    return [dict(zip(names, of_feature, strict=True)) for of_feature in zip(*parts, strict=True)]


def strongest_edges(graph: InteractionGraph, layer: str, found: LayerContexts, incoming: bool) -> list[Embedded]:
    """Of every feature described, its strongest edges from or to features that are not constant, strongest first."""
    n, index = len(found.features), graph.node_layers.index(layer)
    source = graph.node_layers[index - 1] if incoming and index else layer
    is_there = source in graph.edges and (index > 0 or not incoming)
    if not is_there:
        return [{"partners": [], "strengths": []} for _ in range(n)]
    refuse_non_finite(graph.edges[source], f"edges/{source}")
    strengths: Float[Tensor, "feature partner"] = graph.edges[source] if incoming else graph.edges[source].T
    partner = source if incoming else graph.node_layers[index + 1]
    first = int(graph.bases[partner].has_constant)
    variable = strengths[found.first : found.features.stop, first:]
    values, partners = variable.sort(dim=1, descending=True, stable=True)
    kept = (values[:, :N_EDGES] > 0).sum(1).tolist()
    return [
        {"partners": (row[:n_kept] + first).tolist(), "strengths": rounded(of_row[:n_kept])}
        for row, of_row, n_kept in zip(partners, values, kept, strict=True)
    ]
