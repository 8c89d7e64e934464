"""The score of every example of an evaluation, taken down while the ablation sums them."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from libcore import processes
from libcore.ablation.evaluation import EvaluationData


class ExampleScores:
    """Watches evaluations: whatever is evaluated on `watched` leaves the scores of single examples here.

    Attributes:
        watched: the same data.
    """

    def __init__(self, data: EvaluationData) -> None:
        self.data = data
        self.watched = replace(data, score_sum=self.score_sum)
        self.of_example: list[list[float]] = [[] for _ in range(len(data.inputs))]

    def score_sum(self, outputs: Tensor, start: int, stop: int) -> float:
        """Of examples `start` to `stop`, as `data` scores them."""
        scores = scores_of_examples(self.data, outputs, start, stop)
        # Each example is one thread's, and comes once in every evaluation: its list is in their order.
        for number, score in enumerate(scores.tolist(), start):
            self.of_example[number].append(score)
        return scores.sum().item()

    def taken(self) -> Float[Tensor, "evaluation example"]:
        """Scores of the evaluations since the last call, in their order, float64."""
        known = processes.merged({number: scores for number, scores in enumerate(self.of_example) if scores})
        taken = torch.tensor([known.get(number, []) for number in range(len(self.of_example))], dtype=torch.float64).T
        for scores in self.of_example:
            scores.clear()
        return taken


def scores_of_examples(data: EvaluationData, outputs: Tensor, start: int, stop: int) -> Float[Tensor, " example"]:
    """Of examples `start` to `stop`, float64; one by one where the data know their sum only."""
    if data.example_scores is not None:
        return data.example_scores(outputs, start, stop).detach().to("cpu", torch.float64)
    one_by_one = [
        data.score_sum(outputs[number - start : number - start + 1], number, number + 1)
        for number in range(start, stop)
    ]
    return torch.tensor(one_by_one, dtype=torch.float64)
