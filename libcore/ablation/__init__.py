"""Node and edge ablation: how many features, and how many edges, the model's score needs (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.ablation.kept_features import outputs_with_kept
from libcore.ablation.schedule import bisect, edge_evaluations_left, halvings, node_evaluations_left
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections.masked import masked_evaluation
from libcore.streams import rows_per_chunk

ScoreSum = Callable[[Tensor, int, int], float]
"""`(outputs of examples start..stop, start, stop) -> sum of their scores`."""
OnScore = Callable[[str, int, float, int], None]
"""Called after each evaluation with node layer, number kept, score, and how many evaluations at most are still to come
in this layer's curve."""

ROUND_OFF = 1e-12
"""Scores are sums of examples divided by their number: equal ones may differ by this."""


@dataclass
class AblationCurve:
    """Scores of one node layer (or layer pair) by how many features (or edges) were kept."""

    score_by_kept: dict[int, float] = field(default_factory=dict)
    needed: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationData:
    """Held-out inputs and how outputs on them are scored.

    Attributes:
        inputs: what the chain's `embed` takes.
        score_sum: scores of a chunk's outputs, summed over examples.
        lower_is_better: whether a model that is harmed scores more, as in cross-entropy.
        score_name: what the score is called; cross-entropies are in nats per token.
    """

    inputs: Tensor
    score_sum: ScoreSum
    lower_is_better: bool = False
    score_name: str = "accuracy"

    def first(self, n_examples: int | None) -> EvaluationData:
        """The first `n_examples`, all by default."""
        return replace(self, inputs=self.inputs[:n_examples])

    def within(self, score: float, test_score: float, tolerance: float) -> bool:
        """Whether a score is at most `tolerance` worse than the unablated model's; never where it is no number."""
        if self.lower_is_better:
            return score <= test_score + tolerance + ROUND_OFF
        return score >= test_score - tolerance - ROUND_OFF

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
    on_score: OnScore = lambda layer, kept, score, left: None,
) -> AblationCurve:
    """Keep the first `n` features of one node layer, the constant counted as one, and run the rest of the model.

    The needed count is the smallest `n` whose score is within tolerance: found by trying every `n` upwards, since the
    score need not grow with `n`. The schedule's further `n` complete the curve. Before a layer that narrows, the
    features of all of `data` are held: `examples * positions * features` numbers.
    """
    chunk = examples_per_pass(chain, data, memory_budget)
    output_with_kept = outputs_with_kept(chain, data.inputs, layer, basis, chunk)
    curve, schedule = AblationCurve(), list(schedule)
    search_to = basis.n_features if tolerances else None

    def score(kept: int) -> float:
        nonlocal search_to
        scored = curve.score_by_kept
        if kept not in scored:
            scored[kept] = data.mean_score(lambda start, stop: output_with_kept(start, stop, kept), chunk)
            if search_to is not None and data.within(scored[kept], test_score, min(tolerances)):
                search_to = None
            left = node_evaluations_left(scored, schedule, search_to)
            on_score(chain.node_layers[layer], kept, scored[kept], left)
        return scored[kept]

    for tolerance in sorted(tolerances, reverse=True):
        enough = (kept for kept in range(basis.n_features + 1) if data.within(score(kept), test_score, tolerance))
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
    on_score: OnScore = lambda layer, kept, score, left: None,
) -> AblationCurve:
    """Keep the `n` strongest edges of one layer pair; every output feature is recomputed from its own masked inputs.

    The needed count comes from bisection between 0 and `d_in * d_out`, the bracket of the published code, in which all
    that is more than there are edges is one evaluation. Below the count the curve goes on by halves, down to one edge.
    Holds the features of all of `data` at `layer`: `examples * positions * features` numbers.
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
    bracket, n_edges = width_in * width_out, edges.shape[0] * (edges.shape[1] - int(basis.has_constant))

    def is_enough(kept: int, tolerance: float) -> bool:
        return data.within(score(kept), test_score, tolerance)

    searches = [partial(is_enough, tolerance=tolerance) for tolerance in tolerances]

    def score(kept: int) -> float:
        scored, kept = curve.score_by_kept, min(kept, n_edges)
        if kept not in scored:
            mask = strongest_edges(edges, kept, basis.has_constant)

            def output_of(start: int, stop: int) -> Tensor:
                return chain.output_from(evaluations[start](mask) @ next_basis.from_basis, layer + 1)

            scored[kept] = data.mean_score(output_of, chunk)
            beyond = range(n_edges + 1, bracket + 1) if n_edges in scored else ()
            left = edge_evaluations_left({*scored, *beyond}, searches, bracket, n_edges)
            on_score(name, kept, scored[kept], left)
        return scored[kept]

    for tolerance, search in zip(tolerances, searches, strict=True):
        curve.needed[tolerance] = min(bisect(search, bracket), n_edges)
    for kept in halvings(min(curve.needed.values(), default=0)):
        score(kept)
    return curve


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


def examples_per_pass(chain: Chain, data: EvaluationData, memory_budget: int) -> int:
    """How many examples may go through the whole chain at once."""
    values = chain.values_to_produce(data.inputs, len(chain.sections))
    if chain.tail is not None:
        last = chain.activation(data.inputs[:1], len(chain.sections))
        values = max(values, chain.tail.forward_values(last))
    return rows_per_chunk(2 * values, memory_budget)
