"""Do attributions add up? A check of the integration rule, section by section (METHOD.md 3)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.quadrature import Quadrature
from libcore.sections import Section
from libcore.streams import ActivationStream

N_EXAMPLES = 8
"""Examples that are looked at: the first ones."""


def completeness_error(
    section: Section,
    stream: ActivationStream,
    basis: Basis,
    next_basis: Basis,
    quadrature: Quadrature,
) -> float:
    """`|sum_j A_ij - (fhat_i(x) - fhat_i(0))| / |fhat_i(x) - fhat_i(0)|`, norms over examples, positions and features.

    Zero for an exact integral along the path from zero; the quadrature's error otherwise. The sum over `j` is one
    derivative along the path per point, so that the attributions themselves are not needed. In the activations' dtype;
    NaN where nothing changes.
    """
    activation = stream.produce(0, min(N_EXAMPLES, stream.n_examples))
    basis, next_basis = basis.to(dtype=activation.dtype), next_basis.to(dtype=activation.dtype)
    features = basis.features(activation.detach())

    def to_features(at_features: Tensor) -> Tensor:
        return next_basis.features(section(basis.activation(at_features)))

    change = to_features(features) - to_features(0 * features)
    attributed = torch.zeros_like(change)
    for alpha, weight in quadrature:
        attributed += weight * derivative_along(to_features, alpha * features, features)
    return ((attributed - change).norm() / change.norm()).item()


def derivative_along(
    function: Callable[[Tensor], Tensor], at: Float[Tensor, "*shape"], direction: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape_out"]:
    """`J direction`: a backward pass is linear in what it starts from, and its own derivative is a forward one.

    Of sums, since a gradient that is told what to start from has PyTorch import a computer algebra system, which takes
    a third of a second.
    """
    at = at.detach().requires_grad_()
    with torch.enable_grad():
        output = function(at)
        start = torch.zeros_like(output, requires_grad=True)
        (backward,) = torch.autograd.grad((output * start).sum(), at, create_graph=True)
        (along,) = torch.autograd.grad((backward * direction).sum(), start)
    return along


def chain_completeness(
    chain: Chain, inputs: Tensor, bases: dict[str, Basis], quadrature: Quadrature, memory_budget: int
) -> dict[str, float]:
    """`completeness_error` of every section, by the node layer it starts from."""
    errors: dict[str, float] = {}
    streams = chain.streams(inputs[:N_EXAMPLES], memory_budget)
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        errors[layer] = completeness_error(
            chain.sections[index], streams[index], bases[layer], bases[next_layer], quadrature
        )
    return errors
