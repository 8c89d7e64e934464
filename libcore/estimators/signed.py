"""Signed means of the attributions whose squares are the edges (METHOD.md 3): which way an interaction goes.

A strength (eq. 8) has no sign. Two signed numbers go with it: the mean attribution, which adds up over source features
to the target's mean change, and the slope, the mean derivative weighted by the source's square. Where a section is
affine and the source is centred the mean attribution is zero, whatever the interaction; the slope is not.

Affine sections and blocks have them in closed form (`signed_blocks.py`). Others cost one backward pass per output
feature over the examples (per integration point), output positions summed first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from libcore import processes
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators.differentiation import JacobianRows
from libcore.estimators.signed_blocks import has_signed_sums, signed_sums
from libcore.quadrature import Quadrature
from libcore.sections import AffineSection, BlockSection, Section
from libcore.streams import ActivationStream, float64_zeros

MOST_WORK = 2**18
"""Positions times output features that `examples_within` allows a section: at 577 features some 450 positions. Signs
and shares are settled by as many; the strengths beside them are averages over all data."""


@dataclass(frozen=True)
class SignedEdges:
    """Signed means of one layer pair's attributions, float64.

    Attributes:
        mean: `1/(N P_out) sum_x sum_t A_tij(x)`, in units of the target feature.
        slope: `sum_x sum_s (sum_t J_ti,sj) fhat_sj^2 / sum_x sum_s fhat_sj^2` with `J` the derivative averaged along
            the path of eq. 7, in units of the target per unit of the source; zero for a source that is zero throughout.
        n_examples: how many examples were averaged.
    """

    mean: Float[Tensor, "feature_out feature_in"]
    slope: Float[Tensor, "feature_out feature_in"]
    n_examples: int

    @property
    def share(self) -> Float[Tensor, "feature_out feature_in"]:
        """Each mean attribution by the sum of magnitudes of all that go to the same target; zero where that is zero."""
        total = self.mean.abs().sum(1, keepdim=True)
        return torch.where(total > 0, self.mean / total.clamp(min=torch.finfo(self.mean.dtype).tiny), 0.0)


def signed_edges(
    section: Section, stream: ActivationStream, basis: Basis, next_basis: Basis, quadrature: Quadrature
) -> SignedEdges:
    """Mean attributions and slopes of one section on a stream of activations, in closed form where there is one."""
    if isinstance(section, AffineSection):
        return affine_signed_edges(section, stream, basis, next_basis)
    if isinstance(section, BlockSection) and has_signed_sums(section):
        return block_signed_edges(section, stream, basis, next_basis, quadrature)
    return differentiated_signed_edges(section, stream, basis, next_basis, quadrature)


def affine_signed_edges(
    section: AffineSection, stream: ActivationStream, basis: Basis, next_basis: Basis
) -> SignedEdges:
    """The derivative is the same everywhere: slopes are it, and means are it times the sources' means."""
    slope = (basis.from_basis @ section.weight @ next_basis.to_basis).double().T
    total, squares = (float64_zeros(basis.n_features, like=basis.to_basis) for _ in range(2))
    example = stream.example()
    for _, activation in stream.own_chunks(2 * example.numel() + basis.n_features):
        features = basis.features(activation).double().flatten(0, 1)
        total += features.sum(0)
        squares += features.square().sum(0)
    total, squares = processes.summed(total), processes.summed(squares)
    mean = total / (stream.n_examples * example.shape[1])
    return SignedEdges(slope * mean, torch.where(squares > 0, slope, 0.0), stream.n_examples)


def block_signed_edges(
    section: BlockSection, stream: ActivationStream, basis: Basis, next_basis: Basis, quadrature: Quadrature
) -> SignedEdges:
    """By the block's own sums."""
    (attributed, weighted), squares = signed_sums(section, stream, basis, next_basis, quadrature)
    outputs = stream.n_examples * len(section.positions_of(stream.example()).queries)
    return SignedEdges(attributed.T / outputs, slope_of(weighted.T, squares), stream.n_examples)


def slope_of(
    weighted: Float[Tensor, "feature_out feature_in"], squares: Float[Tensor, " feature_in"]
) -> Float[Tensor, "feature_out feature_in"]:
    """The weighted sum over the sum of weights; zero for a source that is zero throughout."""
    return torch.where(squares > 0, weighted / squares.clamp(min=torch.finfo(squares.dtype).tiny), 0.0)


def differentiated_signed_edges(
    section: Section, stream: ActivationStream, basis: Basis, next_basis: Basis, quadrature: Quadrature
) -> SignedEdges:
    """Mean attributions and slopes of any section."""
    example = basis.features(stream.example())
    with torch.no_grad():
        positions_out = next_basis.features(section(basis.activation(example))).shape[1]
    shape = next_basis.n_features, example.shape[-1]
    attributed, weighted = float64_zeros(*shape, like=example), float64_zeros(*shape, like=example)
    squares = float64_zeros(shape[1], like=example)

    def summed_features(features: Tensor) -> Tensor:
        return next_basis.features(section(basis.activation(features))).sum(1, keepdim=True)

    rows = JacobianRows(summed_features, example, stream.memory_budget)
    for _, activation in stream.own_chunks(rows.values_per_example):
        features = basis.features(activation)
        for (start, stop), row in zip(rows.feature_ranges(), rows(features, quadrature), strict=True):
            attribution = (row * features).double()
            attributed[start:stop] += attribution.sum((1, 2))
            weighted[start:stop] += (attribution * features).sum((1, 2))
        squares += features.double().square().sum((0, 1))
    attributed, weighted, squares = (processes.summed(of_own) for of_own in (attributed, weighted, squares))
    n_samples = stream.n_examples * positions_out
    return SignedEdges(attributed / n_samples, slope_of(weighted, squares), stream.n_examples)


def chain_signed_edges(
    chain: Chain,
    inputs: Tensor,
    bases: dict[str, Basis],
    quadrature: Quadrature,
    memory_budget: int,
) -> dict[str, SignedEdges]:
    """`signed_edges` of every section, by the node layer it starts from; tensors are in main memory.

    Of affine sections on all examples, of others on as many as `examples_within` says.
    """
    found: dict[str, SignedEdges] = {}
    streams = [chain.stream(inputs, index, memory_budget) for index in range(len(chain.sections))]
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        dtype = streams[index].example().dtype
        basis, next_basis = bases[layer].to(dtype=dtype), bases[next_layer].to(dtype=dtype)
        section, stream = chain.sections[index], streams[index]
        if not isinstance(section, AffineSection):
            stream = stream.first(examples_within(stream, next_basis))
        signed = signed_edges(section, stream, basis, next_basis, quadrature)
        found[layer] = SignedEdges(signed.mean.cpu(), signed.slope.cpu(), signed.n_examples)
    return found


def examples_within(stream: ActivationStream, next_basis: Basis) -> int:
    """The first so many examples of a stream are within `MOST_WORK`: at least one, at most all."""
    positions = stream.example().shape[1]
    return max(1, min(stream.n_examples, MOST_WORK // (positions * next_basis.n_features)))
