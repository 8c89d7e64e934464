"""Test examples drawn with replacement, the same draws for every curve of a model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


class Resamples:
    """As many draws as there are examples, `n_resamples` times; held where they fit into half of the budget.

    Attributes:
        memory_budget: bytes.
    """

    def __init__(self, n_examples: int, n_resamples: int, memory_budget: int, seed: int = 0) -> None:
        self.n_examples = n_examples
        self.n_resamples = n_resamples
        self.memory_budget = memory_budget
        self.seed = seed
        held = n_examples * n_resamples <= memory_budget // 2
        self.held = torch.cat(list(self.drawn())) if held else None

    def drawn(self) -> Iterator[Tensor]:
        """How often each example was drawn, `[resample, example]`, a few resamples at a time."""
        generator = torch.Generator().manual_seed(self.seed)
        for first in range(0, self.n_resamples, self.at_a_time):
            several = range(first, min(first + self.at_a_time, self.n_resamples))
            draws = (torch.randint(self.n_examples, (self.n_examples,), generator=generator) for _ in several)
            # No example is drawn 256 times: with one draw for each example on the mean, the chance is 1 / 256!.
            yield torch.stack([torch.bincount(draw, minlength=self.n_examples).to(torch.uint8) for draw in draws])

    @property
    def at_a_time(self) -> int:
        """Resamples whose counts as float64 fit into a quarter of the budget."""
        return max(1, self.memory_budget // 4 // (8 * self.n_examples))

    def means(self, values: Float[Tensor, "evaluation example"]) -> Float[Tensor, "resample evaluation"]:
        """Of every evaluation over every resample, float64."""
        times = self.drawn() if self.held is None else self.held.split(self.at_a_time)
        return torch.cat([some.double() @ values.double().T for some in times]) / self.n_examples
