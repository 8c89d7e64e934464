"""Operations of affine sections, and of blocks of branches beside a residual stream.

For `n` activations, `d` coordinates in, `e` out, `k` features of the next node layer and `j` of this one:

    affine         A P A^T          2 d e k, and d² k unless k < d
                   edges            2 n d j, 2 j d e, 2 j e k
    residual       R P R^T, R T^T   2 d e k, d² k, 2 d² k
                   edges            2 n d j, 2 j d e, 2 j e k
    elementwise    Gram of d        n h², with h neurons; 2 h e k, h² k; d h² and d² h unless it is left in factors
                   edges            2 a j k over all activations, a of whose neurons are active
    normalised     Gram of d        as before, with the gate's neurons among the h
                   rank-one terms   each 2 n h min(h, 2 k) for their outputs, 4 n h d and n d² for their Grams
                   edges            2 n h j k, and each term 2 n (d j + h k)
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.benchmarks.attention_operations import attention_edge_operations, attention_gram_operations
from libcore.basis import Basis
from libcore.quadrature import GRADIENT
from libcore.sections import (
    AffineSection,
    AttentionBranch,
    BlockSection,
    ResidualElementwiseSection,
    Section,
)
from libcore.sections.positionwise.jacobian import Positionwise


def affine_gram_operations(section: AffineSection, next_basis: Basis) -> int:
    """The data are not needed."""
    (d, e), k = section.weight.shape, next_basis.n_features
    return 2 * d * e * k + (d * d * k if k >= d else 0)


def affine_edge_operations(section: AffineSection, activation: Tensor, n: int, basis: Basis, next_basis: Basis) -> int:
    """Features of the data, and their interaction."""
    return linear_edge_operations(section.weight, n * activation.shape[1], basis, next_basis)


def linear_edge_operations(weight: Tensor, n: int, basis: Basis, next_basis: Basis) -> int:
    """Features of `n` activations, and `C⁺ A C` of the linear part."""
    (d, e), j, k = weight.shape, basis.n_features, next_basis.n_features
    return 2 * n * d * j + 2 * j * d * e + 2 * j * e * k


def directions_read(section: Section, next_basis: Basis) -> int | None:
    """How many directions the next layer's features can depend on at most; None where that is all."""
    if isinstance(section, AffineSection):
        return next_basis.n_features
    if isinstance(section, ResidualElementwiseSection):
        carried = 1 if section.carries_constant_alone else next_basis.n_features
        return section.weight_in.shape[1] + carried
    return None


def block_gram_operations(section: BlockSection, example: Tensor, n: int, next_basis: Basis) -> int:
    """Of `n` examples: the residual stream, and every branch."""
    (d, e), k = section.residual.shape, next_basis.n_features
    rows = n * len(section.positions_of(example).queries)
    found = 0
    if not section.carries_constant_alone:
        found += 2 * d * e * k + 3 * d * d * k
    few = directions_read(section, next_basis)
    for branch in section.branches:
        if isinstance(branch, AttentionBranch):
            found += n * attention_gram_operations(branch, section.positions_of(example), d, k)
        elif isinstance(branch, Positionwise):
            in_factors = few is not None and few < d
            found += positionwise_gram_operations(branch, example, rows, next_basis, in_factors)
    return found


def positionwise_gram_operations(
    branch: Positionwise, example: Tensor, rows: int, next_basis: Basis, in_factors: bool
) -> int:
    """Gram of the derivatives, and of the rank-one terms of a normalisation."""
    (d, h), e, k = branch.reads.shape, branch.writes.shape[1], next_basis.n_features
    terms = len(branch.path_jacobian(example, GRADIENT).terms)
    found = rows * h * h + 2 * h * e * k + h * h * k
    if not in_factors:
        found += d * h * h + d * d * h
    return found + terms * rows * (2 * h * min(h, 2 * k) + 4 * h * d) + terms * (terms + 1) // 2 * rows * d * d


def block_edge_operations(section: BlockSection, activation: Tensor, n: int, basis: Basis, next_basis: Basis) -> int:
    """Of `n` examples; `activation` is of some of them, and says which neurons are active."""
    positions = section.positions_of(activation)
    rows, j, k = n * len(positions.queries), basis.n_features, next_basis.n_features
    found = linear_edge_operations(section.residual, n * activation.shape[1], basis, next_basis)
    for branch in section.branches:
        if isinstance(branch, AttentionBranch):
            found += n * attention_edge_operations(branch, positions, j, k)
        elif isinstance(branch, Positionwise):
            (d, _), h = branch.reads.shape, active_neurons(branch, positions.at_queries(activation))
            terms = len(branch.path_jacobian(activation[:1], GRADIENT).terms)
            found += round(2 * rows * h * j * k) + terms * 2 * rows * (d * j + branch.reads.shape[1] * k)
    return found


@torch.no_grad()
def active_neurons(branch: Positionwise, activation: Tensor) -> float:
    """How many of an activation's derivatives are not zero, on average."""
    slope = branch.path_jacobian(activation, GRADIENT).slope
    return (slope != 0).double().sum(-1).mean().item()
