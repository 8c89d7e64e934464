"""Edge ablation: how many edges between two node layers the model's score needs (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.ablation.bisection import bisection_steps
from libcore.ablation.evaluation import AblationCurve, EvaluationData
from libcore.ablation.masked_scores import masked_scores
from libcore.ablation.steps import KeptAndScore, carried_out
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.streams import ActivationStream


def edge_ablation_steps(
    chain: Chain,
    data: EvaluationData,
    index: int,
    bases: tuple[Basis, Basis],
    edges: Float[Tensor, "feature_out feature_in"],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
    stream: ActivationStream | None = None,
) -> Generator[KeptAndScore, None, AblationCurve]:
    """Keep the `n` strongest edges behind node layer number `index`; each output feature has its own masked inputs.

    The needed count comes from the published bisection between 0 and `d_in * d_out` (`bisection_steps`).
    """
    basis, next_basis = bases
    score_of_mask = masked_scores(chain, data, index, bases, memory_budget, stream)

    def score_of(kept: int) -> float:
        return score_of_mask(strongest_edges(edges, kept, basis.has_constant))

    def within(score: float, tolerance: float) -> bool:
        return data.within(score, test_score, tolerance)

    n_edges = edges[:, basis.variable].numel()
    return (yield from bisection_steps(score_of, basis.d * next_basis.d, n_edges, tolerances, within))


def edge_ablation(
    chain: Chain,
    data: EvaluationData,
    index: int,
    bases: tuple[Basis, Basis],
    edges: Float[Tensor, "feature_out feature_in"],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
) -> AblationCurve:
    """`edge_ablation_steps` from beginning to end."""
    return carried_out(edge_ablation_steps(chain, data, index, bases, edges, tolerances, test_score, memory_budget))


def strongest_edges(
    edges: Float[Tensor, "feature_out feature_in"], kept: int, has_constant: bool
) -> Bool[Tensor, "feature_out feature_in"]:
    """Mask of the `kept` strongest edges; ties at the threshold are kept.

    Edges leaving the constant feature are always kept and not counted.
    """
    mask = torch.zeros_like(edges, dtype=torch.bool)
    first = int(has_constant)
    variable = edges[:, first:]
    if kept >= variable.numel():
        return torch.ones_like(mask)
    if kept > 0:
        mask[:, first:] = variable >= variable.flatten().topk(kept).values[-1]
    mask[:, :first] = True
    return mask


def smallest_kept_edge(edges: Float[Tensor, "feature_out feature_in"], kept: int, has_constant: bool) -> float:
    """Strength of the weakest of the `kept` strongest edges that do not leave the constant feature; 0 for none."""
    variable = edges[:, int(has_constant) :].flatten()
    return variable.topk(min(kept, len(variable))).values[-1].item() if kept > 0 else 0.0
