"""Methods by name: each one turns a chain and its statistics into one basis per node layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from libcore.basis import Basis, identity_basis
from libcore.chain import Chain
from libcore.eigen import RELATIVE, Truncation
from libcore.estimators import Estimator, jacobian_gram
from libcore.estimators.stochastic import PROBES, Probes
from libcore.methods.baselines import generator_of, neuron_basis, random_basis, svd_basis
from libcore.methods.lib import lib_basis
from libcore.principal_components import pca_basis
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import LayerStatistics


@dataclass(frozen=True)
class FitSettings:
    """What fitting a basis depends on besides the chain and the data.

    Attributes:
        truncation: which eigenvalues count as zero.
        jacobian: points along the path from zero at which LIB's Jacobian is averaged; the data point alone by default.
        estimator: how Jacobian Grams are computed.
        memory_budget: bytes that one chunk's working set may take.
        seed: of methods that draw random numbers.
        probes: what the `stochastic` estimator draws.
        on_error: called with node layer and estimated relative error of its Jacobian Gram where that is sampled.
    """

    truncation: Truncation = RELATIVE
    jacobian: Quadrature = GRADIENT
    estimator: Estimator = "auto"
    memory_budget: int = 512 * 2**20
    seed: int = 0
    probes: Probes = PROBES
    on_error: Callable[[str, float], None] = lambda layer, relative_error: None


LayerBasis = Callable[[LayerStatistics, bool, Truncation, torch.dtype], Basis]
"""`statistics, has_constant, truncation, dtype of the activations -> basis` of one node layer."""
Method = Callable[[Chain, Tensor, dict[str, LayerStatistics], FitSettings], dict[str, Basis]]


def fit_lib(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """LIB, last node layer to first: each layer's basis needs the next one's (METHOD.md 2)."""
    dtype = working_dtype(chain, inputs)
    bases = {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}
    streams = chain.streams(inputs, settings.memory_budget)
    for index in reversed(range(len(chain.sections))):
        layer, next_layer = chain.node_layers[index], chain.node_layers[index + 1]
        gram = jacobian_gram(
            chain.sections[index],
            streams[index],
            bases[next_layer].to(dtype=dtype),
            settings.jacobian,
            settings.estimator,
            settings.probes.named(f"basis/{layer}"),
            partial(settings.on_error, layer),
        )
        bases[layer] = lib_basis(statistics[layer], gram, settings.truncation, dtype)
    return {layer: bases[layer] for layer in chain.node_layers}


def fit_pca(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """The PCA baseline: principal directions, by variance."""
    return fit_layer_by_layer(lambda layer: pca_basis, chain, inputs, statistics, settings)


def fit_svd(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """The SVD baseline: PCA without centring."""
    return fit_layer_by_layer(lambda layer: svd_basis, chain, inputs, statistics, settings)


def fit_neuron(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """The neuron baseline: the coordinates themselves, by variance."""
    return fit_layer_by_layer(lambda layer: neuron_basis, chain, inputs, statistics, settings)


def fit_random(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """The random baseline: a rotation of the principal directions that `settings.seed` and the layer's name decide."""
    return fit_layer_by_layer(
        lambda layer: partial(random_basis, generator=generator_of(layer, settings.seed)),
        chain,
        inputs,
        statistics,
        settings,
    )


def fit_layer_by_layer(
    basis_of: Callable[[str], LayerBasis],
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
) -> dict[str, Basis]:
    """What the baselines share: every layer by itself, from its moments; the logits stay in the neuron basis."""
    dtype = working_dtype(chain, inputs)
    bases = {
        layer: basis_of(layer)(statistics[layer], chain.has_constant(layer), settings.truncation, dtype)
        for layer in chain.node_layers[:-1]
    }
    return bases | {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}


def last_basis(
    chain: Chain, statistics: dict[str, LayerStatistics], settings: FitSettings, dtype: torch.dtype
) -> Basis:
    """METHOD.md 2.7: logits keep the neuron basis; a residual stream as last node layer takes its PCA basis."""
    layer = chain.node_layers[-1]
    if chain.has_constant(layer):
        return pca_basis(statistics[layer], True, settings.truncation, dtype)
    return identity_basis(statistics[layer].gram.diagonal().clone(), has_constant=False)


def working_dtype(chain: Chain, inputs: Tensor) -> torch.dtype:
    """What activations are computed in."""
    return chain.embed(inputs[:1]).dtype


METHODS: dict[str, Method] = {
    "lib": fit_lib,
    "pca": fit_pca,
    "svd": fit_svd,
    "neuron": fit_neuron,
    "random": fit_random,
}
