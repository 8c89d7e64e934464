"""PCA in LIB's scale: what of LIB's sparsity is its directions', and what its units' (METHOD.md eq. 1-2, 4)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation, largest_of
from libcore.estimators import jacobian_gram
from libcore.fit_settings import FitSettings, working_dtype
from libcore.layer_by_layer import last_basis
from libcore.methods import method, never
from libcore.methods.lib import basis_about_the_mean
from libcore.principal_components import principal_components
from libcore.quadrature import GRADIENT
from libcore.statistics import LayerStatistics


@method("scaled_pca", label="PCA, LIB's scale", sorts_by="importance", place=15, integrates=never)
def fit_scaled_pca(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """PCA's directions, each so long that the Jacobian to the next layer's features has a mean squared column of 1.

    LIB's features have that length too. Edges are ranked by their strengths, which are in the units of the feature that
    they end at: without one scale two bases are not compared by their directions alone.
    """
    dtype = working_dtype(chain, inputs)
    bases = {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}
    streams = chain.streams(inputs, settings.memory_budget)
    for index, (layer, next_layer) in reversed(list(enumerate(pairwise(chain.node_layers)))):
        next_basis = bases[next_layer].to(dtype=dtype)
        gram = jacobian_gram(chain.sections[index], streams[index], next_basis, GRADIENT, *settings.estimation(layer))
        bases[layer] = scaled_basis(statistics[layer], gram, settings.truncation, dtype)
    return {layer: bases[layer] for layer in chain.node_layers}


def scaled_basis(
    statistics: LayerStatistics, jacobian_gram: Float[Tensor, "d d"], truncation: Truncation, dtype: torch.dtype
) -> Basis:
    """Principal components times what the next layer's features depend on them, sorted by the product's variance.

    `importance` is what LIB's `Λ` is of its own directions: variance times the entry of the Jacobian Gram. Directions
    at or below the cut, which nothing depends on, are dropped.
    """
    components = principal_components(statistics, True, truncation, dtype)
    directions, back = components.project[:-1, 1:], components.restore[1:, :-1]
    squared_lengths = torch.einsum("ki,ij,kj->k", components.restore, jacobian_gram, components.restore).clamp(min=0.0)
    importance, order = (components.variance * squared_lengths)[1:].sort(descending=True, stable=True)
    kept = order[importance > truncation.cut(largest_of(importance), dtype)]
    lengths = squared_lengths[1:][kept].sqrt()
    return basis_about_the_mean(
        directions[:, kept] * lengths,
        back[kept] / lengths[:, None],
        statistics.mean,
        torch.cat([squared_lengths[:1], importance]),
    )
