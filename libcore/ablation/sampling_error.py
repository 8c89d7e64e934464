"""The needed count of one curve on resamples of the test examples, bases as they are (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from libcore.ablation.evaluation import ROUND_OFF
from libcore.ablation.node import NUMBERS_AT_A_TIME
from libcore.ablation.resamples import Resamples
from libcore.ablation.schedule import Bracket
from libcore.ablation.steps import KeptAndScore

ENDS = (0.025, 0.975)
"""Shares of the resamples below the ends of an interval that holds 95 % of them."""
NEARLY_ALL = 0.995
"""Share of the resamples whose needed number of features is looked for.

The others, as with edges those beyond the interval's upper end, are given the largest number that was tried.
"""
RESOLUTION = 50
"""Ends of edges' intervals are found to within the needed count over this."""
FIRST_STEP = 16
"""The first step away from the needed count is that count over this: most intervals end within two or three."""

NeededByResample = dict[float, Float[Tensor, " resample"]]
"""By tolerance; infinite where even everything kept is not within it."""
ScoresOf = Callable[[Sequence[int]], Float[Tensor, "evaluation example"]]
"""Scores of every example with these numbers kept."""


@dataclass(frozen=True)
class ResampledCurve:
    """A curve that is evaluated, on the same resamples as all others of its model.

    Attributes:
        scores_of: evaluates.
        unablated: scores of the model as it is.
        resamples: of the examples.
        tolerances: of the score.
        lower_is_better: whether a larger score is a worse one.
    """

    scores_of: ScoresOf
    unablated: Float[Tensor, " example"]
    resamples: Resamples
    tolerances: tuple[float, ...]
    lower_is_better: bool

    def within(self, numbers: Sequence[int]) -> tuple[list[float], Bool[Tensor, "evaluation tolerance resample"]]:
        """Mean scores, and on which resamples each is within each tolerance of the model's own score there."""
        scores = self.scores_of(numbers)
        lost = (scores - self.unablated) * (1.0 if self.lower_is_better else -1.0)
        means = self.resamples.means(lost).T
        limits = torch.tensor(self.tolerances, dtype=means.dtype) + ROUND_OFF
        return scores.mean(1).tolist(), means[:, None] <= limits[:, None]


def central_interval(needed: Float[Tensor, " resample"]) -> tuple[float, float]:
    """The smallest count that is enough on 2.5 % of the resamples, and the smallest that is on 97.5 %."""
    ascending, n = needed.sort().values.tolist(), len(needed)
    low, high = (ascending[max(0, -int(-share * n // 1) - 1)] for share in ENDS)
    return low, high


def resampled_node_steps(curve: ResampledCurve, n_features: int) -> Generator[KeptAndScore, None, NeededByResample]:
    """Counted upwards from none, as the needed count itself, to where nearly every resample has found its own."""
    n_resamples = curve.resamples.n_resamples
    needed = {tolerance: torch.full((n_resamples,), inf, dtype=torch.float64) for tolerance in curve.tolerances}
    kept = 0
    for first in range(0, n_features + 1, NUMBERS_AT_A_TIME):
        numbers = range(first, min(first + NUMBERS_AT_A_TIME, n_features + 1))
        scores, within = curve.within(numbers)
        for index, found in enumerate(needed.values()):
            newly = within[:, index].any(0) & found.isinf()
            found[newly] = first + within[:, index].int().argmax(0)[newly].double()
        yield from zip(numbers, scores, strict=True)
        kept = numbers[-1]
        if all(is_enough(found.isfinite()) for found in needed.values()):
            break
    return needed if kept == n_features else {key: found.clamp(max=kept) for key, found in needed.items()}


def resampled_edge_steps(
    curve: ResampledCurve, n_edges: int, needed: Mapping[float, int]
) -> Generator[KeptAndScore, None, NeededByResample]:
    """From the needed counts outwards, in steps that double, to where few and nearly all resamples are within them.

    Then by bisection to both ends of the interval. Where more edges are worse than fewer there are several thresholds:
    a resample's count is the one next to the needed count, among the numbers tried.
    """
    tried: dict[int, Bool[Tensor, "tolerance resample"]] = {}
    # From few edges to many: masks that differ little from those before cost little.
    for index, tolerance in sorted(enumerate(curve.tolerances), key=lambda item: needed[item[1]]):
        yield from search(curve, tried, index, n_edges, needed[tolerance])
    numbers = sorted(tried)
    beyond = inf if numbers[-1] == n_edges else numbers[-1]
    counts = torch.tensor([*numbers, beyond], dtype=torch.float64)
    within = torch.stack([tried[number] for number in numbers])
    return {
        tolerance: counts[nearest_threshold(within[:, index], numbers.index(needed[tolerance]))]
        for index, tolerance in enumerate(curve.tolerances)
    }


def nearest_threshold(within: Bool[Tensor, "evaluation resample"], start: int) -> Int[Tensor, " resample"]:
    """Of evaluations by ascending number, the first of those within tolerance that reach down or up from `start`.

    Their number where none from `start` upwards is within.
    """
    below, above = within[:start], within[start:]
    unbroken = below.flip(0).int().cumprod(0).sum(0)
    upwards = torch.where(above.any(0), above.int().argmax(0), len(above))
    return start + torch.where(above[0], -unbroken, upwards)


def search(
    curve: ResampledCurve, tried: dict[int, Tensor], index: int, n_edges: int, needed: int
) -> Generator[KeptAndScore, None, None]:
    """Of tolerance number `index`; adds to what was `tried`."""
    resolution, first_step = max(1, needed // RESOLUTION), max(1, needed // FIRST_STEP)

    def share_within(number: int) -> Generator[KeptAndScore, None, float]:
        if number not in tried:
            (score,), within = curve.within([number])
            tried[number] = within[0]
            yield number, score
        return tried[number][index].double().mean().item()

    low, high = ENDS
    bracket, step = Bracket(needed, needed), first_step
    # As in the ablation itself none is taken to be too few.
    while bracket.too_few > 0 and (yield from share_within(bracket.too_few)) >= low:
        bracket, step = replace(bracket, too_few=max(0, bracket.too_few - step)), 2 * step
    step = first_step
    while (yield from share_within(bracket.enough)) < high and bracket.enough < n_edges:
        bracket, step = replace(bracket, enough=min(n_edges, bracket.enough + step)), 2 * step
    for end in (low, high):
        narrowed = bracket
        while (middle := narrowed.middle) is not None and narrowed.enough - narrowed.too_few > resolution:
            narrowed = narrowed.halved(middle, (yield from share_within(middle)) >= end)


def is_enough(found: Bool[Tensor, " resample"]) -> bool:
    """Whether so many of the resamples are enough to end a search."""
    return found.double().mean().item() >= NEARLY_ALL
