"""Node ablation: how many features of one node layer the model's score needs (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence

import torch

from libcore.ablation.evaluation import AblationCurve, EvaluationData, examples_per_pass
from libcore.ablation.node_outputs import outputs_with_kept
from libcore.ablation.steps import KeptAndScore, carried_out
from libcore.basis import Basis
from libcore.chain import Chain


@torch.no_grad()
def node_ablation_steps(
    chain: Chain,
    data: EvaluationData,
    index: int,
    basis: Basis,
    schedule: Iterable[int],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
) -> Generator[KeptAndScore, None, AblationCurve]:
    """Keep the first `n` features of node layer number `index`, the constant counted as one; run the rest of the model.

    The needed count is the smallest `n` whose score is within tolerance: found by trying every `n` upwards, since the
    score need not grow with `n`. The schedule's further `n` complete the curve. Before a layer that narrows, the
    features of all of `data` are held: `examples * positions * features` numbers.
    """
    chunk = examples_per_pass(chain, data, memory_budget)
    output_with_kept = outputs_with_kept(chain, data.inputs, index, basis, chunk)
    curve = AblationCurve()
    scored = curve.score_by_kept

    def evaluated(kept: int) -> KeptAndScore:
        scored[kept] = data.mean_score(lambda start, stop: output_with_kept(start, stop, kept), chunk)
        return kept, scored[kept]

    for tolerance in sorted(tolerances, reverse=True):
        kept = 0
        while True:
            if kept not in scored:
                yield evaluated(kept)
            if kept == basis.n_features or data.within(scored[kept], test_score, tolerance):
                break
            kept += 1
        curve.needed[tolerance] = kept
    for kept in schedule:
        if kept not in scored:
            yield evaluated(kept)
    return curve


def node_ablation(
    chain: Chain,
    data: EvaluationData,
    index: int,
    basis: Basis,
    schedule: Iterable[int],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
) -> AblationCurve:
    """`node_ablation_steps` from beginning to end."""
    return carried_out(node_ablation_steps(chain, data, index, basis, schedule, tolerances, test_score, memory_budget))
