"""From a chain and data to its interaction graph: statistics, bases by a method, edges."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from torch import Tensor

from libcore.chain import Chain
from libcore.eigen import RELATIVE, Truncation
from libcore.estimators import Estimator
from libcore.estimators.stochastic import PROBES, Probes
from libcore.first_pass import first_activations
from libcore.fit_settings import MEMORY_BUDGET, FitSettings
from libcore.graph import InteractionGraph, interaction_edges
from libcore.methods import Method, chosen_method
from libcore.quadrature import IntegrationRule, Quadrature
from libcore.statistics import chain_statistics


def fit(
    chain: Chain,
    inputs: Tensor,
    method: str | Method = "lib",
    *,
    integration: IntegrationRule = "gradient",
    n_points: int = 10,
    estimator: Estimator = "auto",
    truncation: Truncation = RELATIVE,
    memory_budget: int = MEMORY_BUDGET,
    seed: int = 0,
    probes: Probes = PROBES,
    **options: Any,
) -> InteractionGraph:
    """The interaction graph of a model on these inputs, with bases, statistics and edges (METHOD.md 1-3).

    Args:
        chain: the model.
        inputs: as the chain takes them, `[example, ...]`.
        method: a name (`METHODS` lists them), or a function made a method by `@method`.
        integration: along the path from zero, of the edges' attributions: `gradient`, `trapezoidal`, `gauss_legendre`.
        n_points: intervals or points of the rule; `gradient` has one.
        estimator: `auto` takes closed forms where there are any, and differentiates elsewhere.
        truncation: which eigenvalues count as zero.
        memory_budget: bytes that one chunk's working set may take.
        seed: of methods that draw random numbers.
        probes: what `estimator="stochastic"` draws.
        options: the method's own, such as `jacobian="path"` of LIB.

    Raises ValueError for an unknown method, option, rule or estimator, for inputs that the chain does not take, and for
    a chain that is not what it claims to be.
    """
    chosen = chosen_method(method)
    quadrature = Quadrature.of(integration, n_points)
    settings = FitSettings(truncation, quadrature, estimator, memory_budget, seed, probes)
    chosen.refuse(settings, options)
    first_activations(chain, inputs)
    statistics = chain_statistics(chain, inputs, memory_budget)
    bases = chosen(chain, inputs, statistics, settings, **options)
    edges = interaction_edges(chain, inputs, bases, quadrature, estimator, memory_budget, probes)
    versions = {name: importlib.metadata.version(name) for name in ("torch",)}
    header = {"method": chosen.name, "options": json.dumps(options, default=str), "versions": json.dumps(versions)}
    return InteractionGraph(chain.node_layers, statistics, bases, edges, header)
