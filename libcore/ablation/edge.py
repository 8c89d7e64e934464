"""Edge ablation: how many edges between two node layers the model's score needs (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.ablation.evaluation import AblationCurve, EvaluationData, examples_per_pass
from libcore.ablation.schedule import Bracket, halvings
from libcore.ablation.steps import KeptAndScore, carried_out
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections.masked import masked_evaluation


@torch.no_grad()
def edge_ablation_steps(
    chain: Chain,
    data: EvaluationData,
    index: int,
    bases: tuple[Basis, Basis],
    edges: Float[Tensor, "feature_out feature_in"],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
) -> Generator[KeptAndScore, None, AblationCurve]:
    """Keep the `n` strongest edges behind node layer number `index`; each output feature has its own masked inputs.

    The needed count comes from bisection between 0 and `d_in * d_out`, the bracket of the published code, in which all
    that is more than there are edges is one evaluation. Below the count the curve goes on by halves, down to one edge.
    Holds the features of all of `data` at the layer: `examples * positions * features` numbers.
    """
    basis, next_basis = bases
    chunk = examples_per_pass(chain, data, memory_budget)
    evaluations = {
        start: masked_evaluation(
            chain.sections[index],
            basis.features(chain.activation(data.inputs[start : start + chunk], index)),
            basis,
            next_basis,
            memory_budget,
        )
        for start in range(0, len(data.inputs), chunk)
    }
    curve = AblationCurve()
    scored, n_edges = curve.score_by_kept, edges[:, basis.variable].numel()

    def evaluated(kept: int) -> KeptAndScore:
        mask = strongest_edges(edges, kept, basis.has_constant)

        def output_of(start: int, stop: int) -> Tensor:
            return chain.output_from(next_basis.activation(evaluations[start](mask)), index + 1)

        scored[kept] = data.mean_score(output_of, chunk)
        return kept, scored[kept]

    for tolerance in tolerances:
        bracket = Bracket(too_few=0, enough=basis.d * next_basis.d)
        while (middle := bracket.middle) is not None:
            kept = min(middle, n_edges)
            if kept not in scored:
                yield evaluated(kept)
            bracket = bracket.halved(middle, data.within(scored[kept], test_score, tolerance))
        curve.needed[tolerance] = min(bracket.enough, n_edges)
    for kept in halvings(min(curve.needed.values(), default=0)):
        if kept not in scored:
            yield evaluated(kept)
    return curve


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
