"""Needed counts of a whole model on resamples of the test examples (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.ablation.edge import strongest_edges
from libcore.ablation.evaluation import AblationCurve, EvaluationData, unablated_score
from libcore.ablation.example_scores import ExampleScores
from libcore.ablation.masked_scores import masked_scores
from libcore.ablation.node import kept_scores
from libcore.ablation.plan import AblationPlan, PlannedCurve
from libcore.ablation.resamples import Resamples
from libcore.ablation.sampling_error import (
    NeededByResample,
    ResampledCurve,
    ScoresOf,
    resampled_edge_steps,
    resampled_node_steps,
)
from libcore.ablation.whole_model import Ablated, AblationKind, Evaluation, labelled
from libcore.basis import Basis
from libcore.chain import Chain


@dataclass(frozen=True)
class ResampledNeeds:
    """On every resample, which are the same resamples for all curves: their sums are totals.

    Attributes:
        nodes: by node layer.
        edges: by the node layer that they leave.
    """

    nodes: dict[str, NeededByResample] = field(default_factory=dict)
    edges: dict[str, NeededByResample] = field(default_factory=dict)


def resampling_steps(
    chain: Chain,
    data: EvaluationData,
    bases: Mapping[str, Basis],
    edges: Mapping[str, Float[Tensor, "feature_out feature_in"]],
    edge_curves: Mapping[str, AblationCurve],
    tolerances: Sequence[float],
    n_resamples: int,
    memory_budget: int,
    seed: int = 0,
    which: Ablated | None = None,
) -> Generator[Evaluation, None, ResampledNeeds]:
    """Of every node layer but the last, and of every layer pair with edges, evaluation by evaluation: what was ablated.

    `edge_curves` are the ablation's own, from whose needed counts the search starts. A quarter of the budget is for the
    resamples and what is summed over them.
    """
    which = which or Ablated()
    for_resamples = memory_budget // 4
    for_evaluations = memory_budget - for_resamples
    scores, resamples = ExampleScores(data), Resamples(len(data.inputs), n_resamples, for_resamples, seed)
    unablated_score(chain, scores.watched, for_evaluations)
    (unablated,) = scores.taken()
    streams = chain.streams(data.inputs, for_evaluations)

    def curve_of(scores_of: ScoresOf) -> ResampledCurve:
        return ResampledCurve(scores_of, unablated, resamples, tuple(tolerances), data.lower_is_better)

    found = ResampledNeeds()
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        basis, stream = bases[layer], streams[index]
        rest = (stream.memory_budget, stream)
        if which.has_nodes(layer):
            of_kept = kept_scores(chain, scores.watched, index, basis, *rest)
            of_nodes = resampled_node_steps(curve_of(taken_after(scores, of_kept)), basis.n_features)
            found.nodes[layer] = yield from labelled("node", layer, of_nodes)
        if layer in edges and which.has_edges(layer):
            strengths = edges[layer]
            of_mask = masked_scores(chain, scores.watched, index, (basis, bases[next_layer]), *rest)
            curve = curve_of(masked_taken(scores, of_mask, strengths, basis.has_constant))
            n_edges = strengths[:, basis.variable].numel()
            of_edges = resampled_edge_steps(curve, n_edges, edge_curves[layer].needed)
            found.edges[layer] = yield from labelled("edge", layer, of_edges)
    return found


def taken_after(scores: ExampleScores, evaluate: Callable[[Sequence[int]], object]) -> ScoresOf:
    """Scores of single examples that an evaluation of several numbers leaves."""

    def scores_of(numbers: Sequence[int]) -> Tensor:
        evaluate(numbers)
        return scores.taken()

    return scores_of


def masked_taken(
    scores: ExampleScores, score_of: Callable[[Tensor], object], strengths: Tensor, has_constant: bool
) -> ScoresOf:
    """The same of masks of the strongest edges."""

    def scores_of(numbers: Sequence[int]) -> Tensor:
        for kept in numbers:
            score_of(strongest_edges(strengths, kept, has_constant))
        return scores.taken()

    return scores_of


def totals(curves: Mapping[str, NeededByResample]) -> NeededByResample:
    """Sums over node layers, or layer pairs, resample by resample."""
    tolerances = next(iter(curves.values()), {})
    return {tolerance: torch.stack([found[tolerance] for found in curves.values()]).sum(0) for tolerance in tolerances}


def plan_resampling(
    chain: Chain,
    bases: Mapping[str, Basis],
    layers_with_edges: Collection[str],
    n_tolerances: int,
    which: Ablated | None = None,
) -> AblationPlan:
    """Evaluations that `resampling_steps` takes at most."""
    which = which or Ablated()
    curves: dict[tuple[AblationKind, str], PlannedCurve] = {}
    n_sections = len(chain.sections)
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        basis, next_basis = bases[layer], bases[next_layer]
        if which.has_nodes(layer):
            curves["node", layer] = PlannedCurve(basis.n_features + 1, passes=n_sections + 1)
        if layer in layers_with_edges and which.has_edges(layer):
            doublings = (basis.n_features * next_basis.n_features).bit_length() + 1
            curves["edge", layer] = PlannedCurve(
                4 * n_tolerances * doublings, passes=next_basis.n_features + n_sections - index
            )
    return AblationPlan(curves)
