"""Sections that estimators are compared on, and the bases on either side of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import slow_reference
import torch
from tiny_models import (
    affine,
    attention,
    basis_of,
    random,
    random_activation,
    residual_elementwise,
)
from torch import Generator, Tensor
from torch.nn import functional

from libcore.basis import Basis
from libcore.eigen import Truncation
from libcore.layer_by_layer import principal_basis
from libcore.quadrature import Quadrature
from libcore.sections import ComposedSection, FunctionSection, Section
from libcore.statistics import statistics_of

D_IN, D_OUT = 4, 3

CLOSED_FORM: dict[str, Callable[[Generator], Section]] = {
    "affine": lambda generator: affine(generator, D_IN, D_OUT, constant_out=False),
    "relu": lambda generator: residual_elementwise(generator, D_IN, 5, D_OUT, functional.relu),
    "gelu": lambda generator: residual_elementwise(generator, D_IN, 5, D_OUT, functional.gelu),
    "sigmoid": lambda generator: residual_elementwise(generator, D_IN, 5, D_OUT, torch.sigmoid),
    "attention": lambda generator: attention(generator, D_IN, D_OUT),
    "attention_bidirectional": lambda generator: attention(generator, D_IN, D_OUT, causal=False),
    "attention_read_at_some_positions": lambda generator: attention(generator, D_IN, D_OUT, query_positions=(-1, 0)),
    "attention_wide_values": lambda generator: attention(generator, D_IN, D_OUT, query_positions=(-1,), d_value=3),
}
SECTIONS = CLOSED_FORM | {
    "composed": lambda generator: ComposedSection(
        [
            attention(generator, D_IN, D_IN, query_positions=(-1,)),
            residual_elementwise(generator, D_IN, 5, D_OUT, torch.tanh),
        ]
    ),
    "function": lambda generator: FunctionSection(lambda f: torch.sin(f[..., :D_OUT]) * f.flip(1)[..., 1:]),
}
RULES = {
    "gradient": (Quadrature.of("gradient", 1), slow_reference.gradient_rule()),
    "trapezoidal": (Quadrature.of("trapezoidal", 2), slow_reference.trapezoidal_rule(2)),
    "gauss_legendre": (Quadrature.of("gauss_legendre", 2), slow_reference.gauss_legendre_rule(2)),
}


@dataclass
class Case:
    """A section, data before it, a whole basis before it and some basis (not square) after it."""

    section: Section
    activation: Tensor
    basis: Basis
    next_basis: Basis

    @property
    def to_basis_next(self) -> Tensor:
        """Of the next layer's basis."""
        return self.next_basis.to_basis

    @property
    def features(self) -> Tensor:
        """Features of all examples."""
        return self.activation @ self.basis.to_basis


def case_of(section: Section, generator: Generator, n: int = 5, positions: int = 3, next_features: int = 4) -> Case:
    """Random data and bases for a section from `D_IN` to `D_OUT` coordinates."""
    activation = random_activation(generator, n, positions, D_IN)
    statistics = statistics_of(activation.flatten(0, 1), has_constant=True)
    basis = principal_basis(statistics, True, Truncation("absolute", 1e-12), torch.float64)
    return Case(section, activation, basis, basis_of(random(generator, D_OUT, next_features)))
