"""Held-out data, how outputs on them are scored, and the score of the model as it is (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from libcore.ablation.examples import Examples
from libcore.chain import Chain
from libcore.numerical_errors import first_not_finite_in, not_finite_on

ScoreSum = Callable[[Tensor, int, int], float]
"""`(outputs of examples start..stop, start, stop) -> sum of their scores`."""

ExampleScoresOf = Callable[[Tensor, int, int], Tensor]
"""`(outputs of examples start..stop, start, stop) -> their scores, [example]`."""

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
        score_sum: scores of a chunk's outputs, summed over examples; called by several threads.
        lower_is_better: whether a model that is harmed scores more, as in cross-entropy.
        score_name: what the score is called; cross-entropies are in nats per token.
        example_scores: what `score_sum` sums, where it is at hand: whoever wants the scores of single examples then
            need not have them scored one by one.
    """

    inputs: Tensor
    score_sum: ScoreSum
    lower_is_better: bool = False
    score_name: str = "accuracy"
    example_scores: ExampleScoresOf | None = None

    def first(self, n_examples: int | None) -> EvaluationData:
        """The first `n_examples`, all by default."""
        return replace(self, inputs=self.inputs[:n_examples])

    def within(self, score: float, test_score: float, tolerance: float) -> bool:
        """Whether a score is at most `tolerance` worse than the unablated model's; never where it is no number."""
        return is_within(score, test_score, tolerance, self.lower_is_better)


def is_within(score: float, test_score: float, tolerance: float, lower_is_better: bool) -> bool:
    """Whether a score is at most `tolerance` worse than the model's; never where it is no number."""
    if lower_is_better:
        return score <= test_score + tolerance + ROUND_OFF
    return score >= test_score - tolerance - ROUND_OFF


def accuracy(inputs: Tensor, labels: Tensor) -> EvaluationData:
    """Scored by whether the largest logit at the last position is the label's.

    Args:
        inputs: what the chain's `embed` takes, `[example, ...]`.
        labels: number of each example's class, integers `[example]`.

    Raises ValueError for labels of another shape or dtype, which would be broadcast or never right.
    """
    for name, given in (("inputs", inputs), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} are a {type(given).__name__}; expected a tensor")
    if labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"labels have shape {list(labels.shape)}; expected [example], one per input ({inputs.shape[:1].numel()})"
        )
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels have dtype {labels.dtype}; expected integers, the number of each example's class")

    def are_correct(outputs: Tensor, start: int, stop: int) -> Tensor:
        return number_of_largest(outputs[:, -1]) == labels[start:stop]

    def correct(outputs: Tensor, start: int, stop: int) -> float:
        return float(are_correct(outputs, start, stop).sum())

    return EvaluationData(inputs, correct, example_scores=are_correct)


def cross_entropy(inputs: Tensor, labels: Int[Tensor, "example position"]) -> EvaluationData:
    """Scored by the mean over positions of the cross-entropy to a label at each, in nats: lower is better.

    Labels are of the first output positions, as many as there are labels.
    """

    def losses(outputs: Tensor, start: int, stop: int) -> Tensor:
        expected = labels[start:stop].long()
        logits = outputs[:, : expected.shape[1]]
        of_positions = functional.cross_entropy(logits.flatten(0, 1), expected.flatten(), reduction="none")
        return of_positions.view_as(expected).mean(1, dtype=torch.float64)

    def score_sum(outputs: Tensor, start: int, stop: int) -> float:
        return losses(outputs, start, stop).sum().item()

    return EvaluationData(inputs, score_sum, lower_is_better=True, score_name="cross-entropy", example_scores=losses)


def number_of_largest(logits: Float[Tensor, "example class"]) -> Int[Tensor, " example"]:
    """The first of the largest, by NumPy where it can: on a CPU torch's own takes three times as long."""
    if logits.is_cuda or logits.dtype not in (torch.float32, torch.float64):
        return logits.argmax(-1)
    return torch.from_numpy(logits.detach().numpy().argmax(-1))


def unablated_score(chain: Chain, data: EvaluationData, memory_budget: int) -> float:
    """Score of the model itself; raises NumericalError for outputs that are not finite."""
    examples = Examples.of(chain, data.inputs, 0, memory_budget)

    def score_of(start: int, stop: int) -> float:
        output = chain.output_from(chain.activation(data.inputs[start:stop], 0), 0)
        if not output.sum().isfinite():
            refuse_not_finite(chain, data.inputs, output, start)
        chain.on_chunk(chain.node_layers[0], stop, len(data.inputs))
        return data.score_sum(output, start, stop)

    return sum(examples.mapped(score_of)) / examples.count


def refuse_not_finite(chain: Chain, inputs: Tensor, output: Float[Tensor, "batch position d"], start: int) -> None:
    """Raises NumericalError for an output that is not finite; `start` is the number of its first example.

    Named are the first such example, and the first node layer whose activation is not finite on it.
    """
    if (of_chunk := first_not_finite_in(output)) is not None:
        example = start + of_chunk
        passed = zip(chain.node_layers, chain.activations(inputs[example : example + 1]), strict=True)
        layer = next((layer for layer, activation in passed if not activation.isfinite().all()), "the model's output")
        raise not_finite_on(layer, example, len(inputs))
