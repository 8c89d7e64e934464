"""Node and edge ablation: how many features, and how many edges, the model's score needs (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.chunking import rows_per_chunk
from libcore.kept_features import outputs_with_kept
from libcore.sections.masked import masked_evaluation

ScoreSum = Callable[[Tensor, int, int], float]
"""`(outputs of examples start..stop, start, stop) -> sum of their scores`; a higher score is better."""
OnScore = Callable[[str, int, float], None]
"""Called with node layer, number kept and score after each evaluation."""

ROUND_OFF = 1e-12
"""Scores are sums of examples divided by their number: equal ones may differ by this."""


@dataclass
class AblationCurve:
    """Scores of one node layer (or layer pair) by how many features (or edges) were kept."""

    score_by_kept: dict[int, float] = field(default_factory=dict)
    needed: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationData:
    """Held-out inputs and how outputs on them are scored."""

    inputs: Tensor
    score_sum: ScoreSum

    def first(self, n_examples: int | None) -> EvaluationData:
        """The first `n_examples`, all by default."""
        return EvaluationData(self.inputs[:n_examples], self.score_sum)

    def mean_score(self, output_of: Callable[[int, int], Tensor], chunk: int) -> float:
        """Mean score over all inputs, `chunk` examples at a time."""
        n = len(self.inputs)
        total = sum(
            self.score_sum(output_of(start, min(start + chunk, n)), start, min(start + chunk, n))
            for start in range(0, n, chunk)
        )
        return total / n


@torch.no_grad()
def unablated_score(chain: Chain, data: EvaluationData, memory_budget: int) -> float:
    """Score of the model itself."""
    chunk = examples_per_pass(chain, data, memory_budget)
    return data.mean_score(
        lambda start, stop: chain.output_from(chain.activation(data.inputs[start:stop], 0), 0), chunk
    )


@torch.no_grad()
def node_ablation(
    chain: Chain,
    data: EvaluationData,
    layer: int,
    basis: Basis,
    schedule: Iterable[int],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
    on_score: OnScore = lambda layer, kept, score: None,
) -> AblationCurve:
    """Keep the first `n` features of one node layer, the constant counted as one, and run the rest of the model.

    The needed count is the smallest `n` whose score is within tolerance: found by trying every `n` upwards, since the
    score need not grow with `n`. The schedule's further `n` complete the curve. Before a layer that narrows, the
    features of all of `data` are held: `examples * positions * features` numbers.
    """
    chunk = examples_per_pass(chain, data, memory_budget)
    output_with_kept = outputs_with_kept(chain, data.inputs, layer, basis, chunk)
    curve = AblationCurve()

    def score(kept: int) -> float:
        if kept not in curve.score_by_kept:
            curve.score_by_kept[kept] = data.mean_score(lambda start, stop: output_with_kept(start, stop, kept), chunk)
            on_score(chain.node_layers[layer], kept, curve.score_by_kept[kept])
        return curve.score_by_kept[kept]

    for tolerance in sorted(tolerances, reverse=True):
        enough = (kept for kept in range(basis.n_features + 1) if score(kept) >= test_score - tolerance - ROUND_OFF)
        curve.needed[tolerance] = next(enough, basis.n_features)
    for kept in schedule:
        score(kept)
    return curve


@torch.no_grad()
def edge_ablation(
    chain: Chain,
    data: EvaluationData,
    layer: int,
    bases: tuple[Basis, Basis],
    edges: Float[Tensor, "feature_out feature_in"],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
    on_score: OnScore = lambda layer, kept, score: None,
) -> AblationCurve:
    """Keep the `n` strongest edges of one layer pair; every output feature is recomputed from its own masked inputs.

    The needed count comes from bisection between 0 and `d_in * d_out`, the bracket of the published code; below it the
    curve goes on by halves, down to one edge. Holds the features of all of `data` at `layer`: `examples * positions *
    features` numbers.
    """
    basis, next_basis = bases
    name, section = chain.node_layers[layer], chain.sections[layer]
    width_in, width_out = basis.to_basis.shape[0], next_basis.to_basis.shape[0]
    chunk = examples_per_pass(chain, data, memory_budget)
    evaluations = {
        start: masked_evaluation(
            section,
            basis.features(chain.activation(data.inputs[start : start + chunk], layer)),
            basis.from_basis,
            next_basis.to_basis,
            memory_budget,
        )
        for start in range(0, len(data.inputs), chunk)
    }
    curve = AblationCurve()

    def score(kept: int) -> float:
        if kept not in curve.score_by_kept:
            mask = strongest_edges(edges, kept, basis.has_constant)

            def output_of(start: int, stop: int) -> Tensor:
                return chain.output_from(evaluations[start](mask) @ next_basis.from_basis, layer + 1)

            curve.score_by_kept[kept] = data.mean_score(output_of, chunk)
            on_score(name, kept, curve.score_by_kept[kept])
        return curve.score_by_kept[kept]

    n_edges = edges.shape[0] * (edges.shape[1] - int(basis.has_constant))
    for tolerance in tolerances:
        needed = bisect(
            lambda kept, enough=test_score - tolerance: score(kept) >= enough - ROUND_OFF, width_in * width_out
        )
        curve.needed[tolerance] = min(needed, n_edges)
    kept = min(curve.needed.values(), default=0)
    while kept := kept // 2:
        score(kept)
    return curve


def bisect(is_enough: Callable[[int], bool], upper: int) -> int:
    """Smallest number found enough by halving `(0, upper]`, rounding up; `upper` is taken to be enough."""
    lower = 0
    while upper - lower > 1:
        middle = (lower + upper + 1) // 2
        lower, upper = (lower, middle) if is_enough(middle) else (middle, upper)
    return upper


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


def kept_schedule(n_features: int, ratio: float = 1.06, dense_until: int = 24) -> list[int]:
    """Numbers of features at which a node-ablation curve is drawn: all small ones, then geometric, then all."""
    schedule, step = list(range(min(n_features, dense_until) + 1)), float(dense_until)
    while (step := max(step * ratio, step + 1)) < n_features:
        schedule.append(int(step))
    return sorted({*schedule, n_features})


def examples_per_pass(chain: Chain, data: EvaluationData, memory_budget: int) -> int:
    """How many examples may go through the whole chain at once."""
    values = chain.values_to_produce(data.inputs, len(chain.sections))
    if chain.tail is not None:
        last = chain.activation(data.inputs[:1], len(chain.sections))
        values = max(values, chain.tail.forward_values(last))
    return rows_per_chunk(2 * values, memory_budget)
