"""The Jacobian baseline: LIB's alignment without its whitening, every pair of layers by itself."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from libcore.basis import Basis, identity_basis
from libcore.chain import Chain
from libcore.estimators import jacobian_gram
from libcore.fit_settings import FitSettings, working_dtype
from libcore.layer_by_layer import eigenbasis, last_basis
from libcore.methods import method, never
from libcore.quadrature import GRADIENT
from libcore.statistics import LayerStatistics


@method("jacobian_svd", label="Jacobian SVD", sorts_by="mean squared singular value", place=7, integrates=never)
def fit_jacobian_svd(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """Right singular vectors, over all inputs, of the Jacobian to the next node layer's own coordinates, centred."""
    dtype = working_dtype(chain, inputs)
    bases: dict[str, Basis] = {}
    for (layer, next_layer), section, stream in zip(
        pairwise(chain.node_layers), chain.sections, chain.streams(inputs, settings.memory_budget), strict=True
    ):
        next_basis = identity_basis(statistics[next_layer].gram.diagonal(), has_constant=False).to(dtype=dtype)
        gram = jacobian_gram(section, stream, next_basis, GRADIENT, *settings.estimation(layer))
        bases[layer] = eigenbasis(gram, statistics[layer], settings.truncation, dtype)
    return bases | {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}
