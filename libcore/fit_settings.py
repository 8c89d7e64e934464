"""What fitting a basis depends on beside the chain and the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from libcore.chain import Chain
from libcore.eigen import RELATIVE, Truncation
from libcore.estimators import ESTIMATORS, Estimator, OnError
from libcore.estimators.stochastic import PROBES, Probes
from libcore.names import refuse_other, refuse_other_type
from libcore.quadrature import GRADIENT, Quadrature

MEMORY_BUDGET = 512 * 2**20
"""Bytes, where nobody says how many."""


@dataclass(frozen=True)
class FitSettings:
    """Settings that every method may use.

    Attributes:
        truncation: which eigenvalues count as zero.
        quadrature: the integration rule of edges, which a method may use too.
        estimator: how Jacobian Grams are computed.
        memory_budget: bytes that one chunk's working set may take.
        seed: of methods that draw random numbers.
        probes: what the `stochastic` estimator draws.
        on_error: called with node layer and estimated relative error of its Jacobian Gram where that is sampled.

    Raises ValueError for an estimator that there is not, and for another type of truncation, rule or probes.
    """

    truncation: Truncation = RELATIVE
    quadrature: Quadrature = GRADIENT
    estimator: Estimator = "auto"
    memory_budget: int = MEMORY_BUDGET
    seed: int = 0
    probes: Probes = PROBES
    on_error: Callable[[str, float], None] = lambda layer, relative_error: None

    def __post_init__(self) -> None:
        refuse_other("estimator", self.estimator, ESTIMATORS)
        refuse_other_type("truncation", self.truncation, Truncation)
        refuse_other_type("quadrature", self.quadrature, Quadrature)
        refuse_other_type("probes", self.probes, Probes)

    def estimation(self, layer: str) -> tuple[Estimator, Probes, OnError]:
        """How this node layer's Jacobian Gram is computed: the last arguments of `jacobian_gram`."""
        return self.estimator, self.probes.named(f"basis/{layer}"), partial(self.on_error, layer)


def working_dtype(chain: Chain, inputs: Tensor) -> torch.dtype:
    """What activations are computed in."""
    return chain.embed(inputs[:1]).dtype
