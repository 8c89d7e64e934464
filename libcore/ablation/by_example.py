"""Ablations with the score of every test example, so that examples can be resampled at fixed bases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.ablation.evaluation import ROUND_OFF, AblationCurve, EvaluationData
from libcore.ablation.example_scores import ExampleScores
from libcore.ablation.whole_model import TOLERANCES, Ablations, ablate
from libcore.chain import Chain
from libcore.fit_settings import MEMORY_BUDGET
from libcore.graph import InteractionGraph


@dataclass(frozen=True)
class ExampleCurve:
    """One node layer's (or layer pair's) curve by example.

    Attributes:
        kept: how many features (or edges) were kept, ascending.
        scores: with so many kept.
    """

    kept: tuple[int, ...]
    scores: Float[Tensor, "evaluation example"]


@dataclass(frozen=True)
class ExampleAblations:
    """What `ablate` finds, and what it is the mean of.

    Attributes:
        unablated: scores of the model as it is.
        nodes: by node layer.
        edges: by the node layer that they leave.
    """

    ablations: Ablations
    unablated: Float[Tensor, " example"]
    nodes: dict[str, ExampleCurve] = field(default_factory=dict)
    edges: dict[str, ExampleCurve] = field(default_factory=dict)


def ablate_by_example(
    graph: InteractionGraph,
    chain: Chain,
    data: EvaluationData,
    tolerances: Sequence[float] = TOLERANCES,
    memory_budget: int = MEMORY_BUDGET,
) -> ExampleAblations:
    """`ablate`, each output scored by itself; scores that are known by their sum only take a call for each example.

    Raises ValueError as `ablate` does.
    """
    scores = ExampleScores(data)
    ablations = ablate(graph, chain, scores.watched, tolerances, memory_budget)
    rows = iter(scores.taken())
    found = ExampleAblations(ablations, next(rows))
    for layer, curve in ablations.nodes.items():
        found.nodes[layer] = example_curve(curve, rows)
        if layer in ablations.edges:
            found.edges[layer] = example_curve(ablations.edges[layer], rows)
    return found


def example_curve(curve: AblationCurve, rows: Iterator[Tensor]) -> ExampleCurve:
    """The next rows, one for each number of the curve in the order in which they were evaluated, sorted by number."""
    by_kept = {kept: next(rows) for kept in curve.score_by_kept}
    kept = tuple(sorted(by_kept))
    scores = torch.stack([by_kept[number] for number in kept]) if kept else torch.zeros(0, 0, dtype=torch.float64)
    return ExampleCurve(kept, scores)


def resampled_needed(
    curve: ExampleCurve,
    unablated: Float[Tensor, " example"],
    tolerance: float,
    lower_is_better: bool = False,
    n_resamples: int = 2000,
    seed: int = 0,
) -> list[int]:
    """Needed counts on test examples drawn with replacement, ascending: their quantiles are the sampling error.

    Bases stay as they are; the model's own score is resampled with the ablated ones. Needed is the smallest number that
    was evaluated and is within tolerance, else the largest: where few numbers were evaluated, that is as coarse.

    Raises ValueError for a curve without numbers, and where curve and unablated scores are of other examples.
    """
    if not curve.kept:
        raise ValueError("a curve without any number kept; expected one that was evaluated")
    if curve.scores.shape[1] != len(unablated):
        raise ValueError(f"scores of {curve.scores.shape[1]} examples, and {len(unablated)} unablated ones")
    n_examples = len(unablated)
    sign = 1.0 if lower_is_better else -1.0
    lost = sign * (curve.scores - unablated)
    generator = torch.Generator().manual_seed(seed)
    needed: list[int] = []
    for _ in range(n_resamples):
        drawn = torch.randint(n_examples, (n_examples,), generator=generator)
        times = torch.bincount(drawn, minlength=n_examples).to(lost.dtype)
        is_within = (lost @ times / n_examples <= tolerance + ROUND_OFF).tolist()
        needed.append(
            next((kept for kept, within in zip(curve.kept, is_within, strict=True) if within), curve.kept[-1])
        )
    return sorted(needed)
