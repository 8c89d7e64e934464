"""METHOD.md eq. 1-8 as plain loops over data, positions and features: slow, obvious, and independent of `libcore`.

Everything is float64. A `function` maps one example's activation `[position, d]` to the next layer's features
`[position_out, feature_out]`; a `rule` is a list of `(alpha, weight)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Rule = list[tuple[float, float]]


def gradient_rule() -> Rule:
    """The data point alone."""
    return [(1.0, 1.0)]


def trapezoidal_rule(n_intervals: int) -> Rule:
    """The ends of every interval count half an interval each."""
    total = [0.0] * (n_intervals + 1)
    for interval in range(n_intervals):
        total[interval] += 0.5 / n_intervals
        total[interval + 1] += 0.5 / n_intervals
    return [(point / n_intervals, weight) for point, weight in enumerate(total)]


def gauss_legendre_rule(n_points: int) -> Rule:
    """Golub and Welsch: points are eigenvalues of the Legendre recurrence, weights come from the eigenvectors."""
    recurrence = torch.zeros(n_points, n_points, dtype=torch.float64)
    for k in range(1, n_points):
        recurrence[k, k - 1] = recurrence[k - 1, k] = k / sqrt(4 * k * k - 1)
    roots, vectors = torch.linalg.eigh(recurrence)
    return [((roots[q].item() + 1) / 2, vectors[0, q].item() ** 2) for q in range(n_points)]


def mean_and_gram(activation: Tensor, has_constant: bool) -> tuple[Tensor, Tensor]:
    """Eq. 1 over `[example, position, d]`."""
    n, positions, d = activation.shape
    mean = torch.zeros(d, dtype=torch.float64)
    for x in range(n):
        for s in range(positions):
            mean += activation[x, s] / (n * positions)
    gram = torch.zeros(d, d, dtype=torch.float64)
    for x in range(n):
        for s in range(positions):
            centred = activation[x, s] - mean
            if has_constant:
                centred[-1] = activation[x, s, -1]
            gram += torch.outer(centred, centred) / (n * positions)
    return mean, gram


def average_jacobian(function: Function, point: Tensor, rule: Rule) -> Tensor:
    """`[position_out, feature_out, position, d]`, averaged along the path from zero to `point` `[position, d]`."""
    total = 0.0
    for alpha, weight in rule:
        total = total + weight * torch.autograd.functional.jacobian(function, alpha * point)
    assert isinstance(total, Tensor)
    return total


def jacobian_gram(function: Function, activation: Tensor, rule: Rule) -> Tensor:
    """Eq. 4: `M'`, `[d, d]`."""
    n, positions, d = activation.shape
    gram = torch.zeros(d, d, dtype=torch.float64)
    for x in range(n):
        jacobian = average_jacobian(function, activation[x], rule)
        for t in range(jacobian.shape[0]):
            for i in range(jacobian.shape[1]):
                for s in range(positions):
                    g = jacobian[t, i, s]
                    gram += torch.outer(g, g) / (n * positions)
    return gram


def attribution(function: Function, features: Tensor, rule: Rule) -> Tensor:
    """Eq. 7 of one example: `A_tij`, `[position_out, feature_out, feature_in]`; `function` reads features."""
    jacobian = average_jacobian(function, features, rule)
    positions_out, n_out, positions, n_in = jacobian.shape
    total = torch.zeros(positions_out, n_out, n_in, dtype=torch.float64)
    for s in range(positions):
        total += jacobian[:, :, s, :] * features[s]
    return total


def edges(function: Function, features: Tensor, rule: Rule) -> Tensor:
    """Eq. 8: `E_ij`, `[feature_out, feature_in]`, from features `[example, position, feature_in]`."""
    n, positions, n_in = features.shape
    strength = torch.zeros(function(features[0]).shape[-1], n_in, dtype=torch.float64)
    for x in range(n):
        for at_position in attribution(function, features[x], rule):
            strength += at_position**2 / (n * positions)
    return strength


def signed_means(function: Function, features: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Mean attribution and slope, `[feature_out, feature_in]` each, from features `[example, position, feature_in]`."""
    n, positions, n_in = features.shape
    positions_out, n_out = function(features[0]).shape
    mean = torch.zeros(n_out, n_in, dtype=torch.float64)
    weighted, squares = torch.zeros_like(mean), torch.zeros(n_in, dtype=torch.float64)
    for x in range(n):
        mean += attribution(function, features[x], rule).sum(0) / (n * positions_out)
        jacobian = average_jacobian(function, features[x], rule)
        for s in range(positions):
            squares += features[x, s] ** 2
            for t in range(positions_out):
                weighted += jacobian[t, :, s, :] * features[x, s] ** 2
    return mean, weighted / squares


def of_one_example(section: Function, to_basis_next: Tensor, from_basis: Tensor | None = None) -> Function:
    """`[position, d]` (or features, where `from_basis` is given) to next features `[position_out, feature_out]`."""

    def function(point: Tensor) -> Tensor:
        activation = point if from_basis is None else point @ from_basis
        return section(activation[None])[0] @ to_basis_next

    return function


@dataclass
class SlowBasis:
    """`C`, `C⁺` and the kept features' `Λ` (of PCA: variance), the constant first."""

    to_basis: Tensor
    from_basis: Tensor
    importance: Tensor


def principal_basis(activation: Tensor, threshold: float) -> SlowBasis:
    """Eq. 2 for a layer with the constant coordinate; directions with variance at or below `threshold` are dropped."""
    d = activation.shape[-1]
    mean, gram = mean_and_gram(activation, has_constant=True)
    centring = torch.eye(d, dtype=torch.float64)
    centring[-1, :-1] = -mean[:-1]
    rotation, variance = constant_first(gram, threshold)
    return SlowBasis(centring @ rotation, rotation.T @ torch.linalg.inv(centring), variance)


def lib_basis(activation: Tensor, gram_of_jacobian: Tensor, threshold: float) -> SlowBasis:
    """Eq. 3, 5 and 6 for a layer with the constant coordinate, `M'` given."""
    components = principal_basis(activation, threshold)
    deviation = torch.diag(components.importance.sqrt())
    whiten = components.to_basis @ torch.linalg.inv(deviation)
    unwhiten = deviation @ components.from_basis
    alignment = unwhiten @ gram_of_jacobian @ unwhiten.T
    importance, vectors = torch.linalg.eigh(alignment[1:, 1:])
    order = [j for j in reversed(range(len(importance))) if importance[j] > threshold]
    rotation = torch.zeros(len(alignment), 1 + len(order), dtype=torch.float64)
    rotation[0, 0] = 1.0
    for column, j in enumerate(order):
        rotation[1:, 1 + column] = vectors[:, j]
    kept = torch.cat([alignment[:1, 0], importance[order]])
    root = torch.diag(kept.sqrt())
    return SlowBasis(whiten @ rotation @ root, torch.linalg.inv(root) @ rotation.T @ unwhiten, kept)


def constant_first(gram: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Eigenvectors as columns and eigenvalues, descending, of a Gram whose last coordinate is the constant one."""
    d = len(gram)
    eigenvalues, vectors = torch.linalg.eigh(gram[:-1, :-1])
    order = [j for j in reversed(range(d - 1)) if eigenvalues[j] > threshold]
    rotation = torch.zeros(d, 1 + len(order), dtype=torch.float64)
    rotation[-1, 0] = 1.0
    for column, j in enumerate(order):
        rotation[:-1, 1 + column] = vectors[:, j]
    return rotation, torch.cat([gram[-1:, -1], eigenvalues[order]])


def lib_of_chain(activations: list[Tensor], sections: list[Function], threshold: float) -> list[SlowBasis]:
    """All node layers of a model whose last one is logits (identity basis, no constant), last to first."""
    width = activations[-1].shape[-1]
    identity = torch.eye(width, dtype=torch.float64)
    bases = [SlowBasis(identity, identity, torch.zeros(width, dtype=torch.float64))]
    for activation, section in reversed(list(zip(activations[:-1], sections, strict=True))):
        gram = jacobian_gram(of_one_example(section, bases[0].to_basis), activation, gradient_rule())
        bases.insert(0, lib_basis(activation, gram, threshold))
    return bases


def masked_outputs(
    section: Function, features: Tensor, from_basis: Tensor, to_basis_next: Tensor, mask: Tensor
) -> Tensor:
    """Every output feature `i` from the inputs `mask[i]` alone: one pass of the section per output feature."""
    columns = []
    for i in range(len(mask)):
        masked = torch.where(mask[i], features, torch.zeros_like(features))
        columns.append(section(masked @ from_basis) @ to_basis_next[:, i])
    return torch.stack(columns, dim=-1)


def strongest_edges(edges: Tensor, kept: int, has_constant: bool) -> Tensor:
    """Sort the edges that do not leave the constant; keep all that are as strong as number `kept`."""
    first = int(has_constant)
    counted = sorted(
        (edges[i, j].item() for i in range(len(edges)) for j in range(first, edges.shape[1])), reverse=True
    )
    mask = torch.zeros_like(edges, dtype=torch.bool)
    for i in range(len(edges)):
        for j in range(edges.shape[1]):
            strong = kept > 0 and edges[i, j].item() >= counted[min(kept, len(counted)) - 1]
            mask[i, j] = j < first or strong
    return mask
