"""Operations of one section's Jacobian Gram and edges, by the estimator that answers for it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.estimators import Estimator, use_closed_form
from libcore.estimators.differentiation import JacobianRows
from libcore.estimators.stochastic import PROBES, Probes
from libcore.sections import Section
from libcore.sections.base import CountedForm
from libcore.sections.operations import Operations


def gram_operations(
    section: Section,
    example: Float[Tensor, "1 position d_in"],
    n_out: int,
    n_points: int = 1,
    estimator: Estimator = "auto",
    probes: Probes = PROBES,
) -> Operations:
    """Of `jacobian_gram` into `n_out` features of the next node layer."""
    if estimator != "stochastic" and use_closed_form(section, estimator) and isinstance(section, CountedForm):
        return section.gram_operations(example, n_out, n_points)
    positions, d_in = example.shape[1:]
    with torch.no_grad():
        output = section(example)
    rows = rows_differentiated(output.shape[1], n_out, estimator, probes, features_too=True)
    back = pass_back(section, example, output, n_out)
    return Operations(rows * (n_points * back + 2 * positions * d_in * d_in))


def edge_operations(
    section: Section,
    example: Float[Tensor, "1 position d_in"],
    n_in: int,
    n_out: int,
    n_points: int,
    n_examples: int,
    memory_budget: int,
    estimator: Estimator = "auto",
    probes: Probes = PROBES,
) -> Operations:
    """Of `edges` between so many features."""
    if estimator != "stochastic" and use_closed_form(section, estimator) and isinstance(section, CountedForm):
        return section.edge_operations(example, n_in, n_out, n_points, n_examples, memory_budget)
    positions, d_in = example.shape[1:]
    through_basis = 2 * positions * d_in * n_in
    with torch.no_grad():
        output = section(example)
    rows = rows_differentiated(output.shape[1], n_out, estimator, probes, features_too=False)
    back = pass_back(section, example, output, n_out) + through_basis
    return Operations(rows * n_points * back + through_basis)


def rows_differentiated(n_positions: int, n_out: int, estimator: Estimator, probes: Probes, features_too: bool) -> int:
    """Backward passes for an example: one for every output position and feature, or for every probe of them."""
    if estimator != "stochastic":
        return n_positions * n_out
    return probes.n if features_too and probes.over == "positions_and_features" else probes.n * n_out


def pass_back(section: Section, example: Tensor, output: Tensor, n_out: int) -> int:
    """A backward pass is as long as a forward one, which a block of output features shares; features are read of both.

    Products of two activations, as attention has them, take twice as long back; they are not told from others.
    """
    forward = section.forward_operations(example) + 2 * output.numel() * n_out
    return forward + forward // JacobianRows.MINIMUM_BLOCK
