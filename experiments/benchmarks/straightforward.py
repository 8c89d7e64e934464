"""The slow reference: Jacobian Grams and edges with one backward pass per output feature, as published code does it.

Nothing here is used to compute anything but the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections import Section
from libcore.statistics import LayerStatistics


@torch.no_grad()
def statistics_of_all(chain: Chain, inputs: Tensor) -> dict[str, LayerStatistics]:
    """Mean and Gram of every node layer on the whole batch (METHOD.md eq. 1)."""
    found = {}
    for layer, activation in zip(chain.node_layers, chain.activations(inputs), strict=True):
        rows = activation.double().flatten(0, 1)
        mean = rows.mean(0)
        centre = mean.clone()
        if chain.has_constant(layer):
            centre[-1] = 0.0
        centred = rows - centre
        found[layer] = LayerStatistics(mean, centred.T @ centred / len(rows), len(rows))
    return found


def backward_passes(
    outputs: Float[Tensor, "batch position_out feature"], inputs: Tensor, at_most: int | None
) -> Iterator[tuple[int, Tensor]]:
    """Output feature, and the derivative by the inputs of its value at one position: a backward pass each."""
    for position, feature in islice(product(range(outputs.shape[1]), range(outputs.shape[2])), at_most):
        # Examples do not meet, so that the derivative of their sum holds each one's.
        total = outputs[:, position, feature].sum()
        yield feature, torch.autograd.grad(total, inputs, retain_graph=True)[0]


def jacobian_gram_by_backward_passes(
    section: Section, activation: Float[Tensor, "batch position d"], next_basis: Basis, at_most: int | None = None
) -> Float[Tensor, "d d"]:
    """`M'` of METHOD.md eq. 4 at the data point, or the part of it that the first `at_most` passes give."""
    activation = activation.detach().requires_grad_()
    n_examples, n_positions, d = activation.shape
    gram = torch.zeros(d, d, dtype=torch.float64, device=activation.device)
    for _, derivative in backward_passes(next_basis.features(section(activation)), activation, at_most):
        rows = derivative.flatten(0, 1).double()
        gram += rows.T @ rows
    return gram / (n_examples * n_positions)


def edges_by_backward_passes(
    section: Section,
    activation: Float[Tensor, "batch position d"],
    basis: Basis,
    next_basis: Basis,
    at_most: int | None = None,
) -> Float[Tensor, "feature_out feature_in"]:
    """`E` of METHOD.md eq. 7-8 at the data point, or what the first `at_most` passes add to it."""
    features = basis.features(activation).detach().requires_grad_()
    n_examples, n_positions, n_in = features.shape
    square_sum = torch.zeros(next_basis.n_features, n_in, dtype=torch.float64, device=activation.device)
    outputs = next_basis.features(section(basis.activation(features)))
    for feature, derivative in backward_passes(outputs, features, at_most):
        attribution = (derivative * features.detach()).sum(1)
        square_sum[feature] += attribution.double().square().sum(0)
    return square_sum / (n_examples * n_positions)
