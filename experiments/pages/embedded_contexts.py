"""What a language model's features respond to, as an HTML page embeds it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from experiments.pages.embedded_graph import refuse_non_finite, rounded
from experiments.pages.embedded_images import Embedded
from libcore.graph import InteractionGraph
from models.analysed import Contexts, LayerContexts, LogitEffects, TokenContexts

SHADES = 1000
"""Activations around a token are embedded as integers, this one for the feature's largest magnitude."""


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


def embedded_contexts(graph: InteractionGraph, contexts: TokenContexts) -> tuple[dict[str, Embedded], Embedded]:
    """By node layer, the features described; and the texts that their contexts are taken from."""
    tokens = TokenTable(contexts.vocabulary)
    by_layer: dict[str, Embedded] = {
        layer: {
            "first": contexts.by_layer[layer].first,
            "examples": described_features(graph, layer, contexts, tokens),
        }
        for layer in graph.node_layers
        if layer in contexts.by_layer
    }
    sequences = tokens.numbered(contexts.tokens)
    return by_layer, {
        "texts": tokens.texts,
        "sequences": sequences,
        "before": contexts.before,
        "shades": SHADES,
    }


def described_features(
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
    scale = largest_magnitudes(found, contexts.before)
    at_quantiles = [embedded_windows(one, scale, contexts.before) for one in found.quantiles]
    parts: dict[str, list[Any]] = {
        "lowest": rounded(lowest),
        "highest": rounded(highest),
        "mean": rounded(found.mean),
        "deviation": rounded(found.standard_deviation),
        "histogram": found.histogram.tolist(),
        "top": embedded_windows(found.highest, scale, contexts.before),
        "bottom": embedded_windows(found.lowest, scale, contexts.before),
        "quantiles": [list(of_feature) for of_feature in zip(*at_quantiles, strict=True)] or [[] for _ in range(n)],
        "common": (found.common / scale[:, None, None] * SHADES).round().int().tolist(),
        "effects": embedded_effects(found.effects, tokens) if found.effects is not None else [None] * n,
    }
    return [dict(zip(parts, of_feature, strict=True)) for of_feature in zip(*parts.values(), strict=True)]


def largest_magnitudes(found: LayerContexts, before: int) -> Float[Tensor, " feature"]:
    """What shades are relative to."""
    ends = torch.stack([found.highest.activations[:, 0, before], found.lowest.activations[:, 0, before]])
    return ends.abs().amax(0).clamp(min=torch.finfo(torch.float32).tiny)


def embedded_windows(contexts: Contexts, scale: Float[Tensor, " feature"], before: int) -> list[list[Embedded]]:
    """Of every feature, its contexts: sequence, position, activation there, shades of the tokens around it.

    The window begins `before` tokens earlier or with the sequence.
    """
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
