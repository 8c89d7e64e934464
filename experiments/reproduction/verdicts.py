"""Whether a claim holds: pure functions from what was measured to a verdict. RULES says the same in words.

A claim is about one or several metrics; each agrees with the paper, disagrees, or is undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from experiments.evidence.comparison import PairedComparison
from experiments.evidence.intervals import FEWEST

Outcome = Literal["agrees", "disagrees", "undecided"]
Verdict = Literal["holds", "holds partly", "does not hold", "undecided", "not run"]
Direction = Literal["smaller", "larger"]

RULES = (
    "A claim is looked at metric by metric (layer by layer, or tolerance by tolerance). **Holds**: all agree with the "
    "paper. **Holds partly**: some agree, not all. **Does not hold**: none agrees and at least one disagrees. "
    "**Undecided**: none agrees, none disagrees. **Not run**: its runs have not all finished, or were not asked for.",
    "*By direction* (the paper says which is smaller): a metric agrees or disagrees if an exact two-sided test over "
    "models decides (p at most 0.05, by Holm over the claim's metrics: six models are the fewest that can, seven for "
    "three metrics) and the nominal 95 % interval lies on one side of no difference. The same value in each of as many "
    "models as could have decided disagrees. All else is undecided.",
    "*By a number*: a metric agrees if the whole nominal 95 % interval over models lies within the tolerance about the "
    "paper's number, disagrees if it lies outside, and is undecided if it reaches over an end, or if there are fewer "
    "than three models.",
    "*By the same weights*: each of the paper's own networks agrees if our value is within the tolerance of the "
    "paper's, else disagrees. There is nothing to be drawn again, so no interval.",
)


def verdict_of(outcomes: Sequence[Outcome]) -> Verdict:
    """Of a claim by its metrics' outcomes; `not run` without any."""
    if not outcomes:
        return "not run"
    if "agrees" in outcomes:
        return "holds" if set(outcomes) == {"agrees"} else "holds partly"
    return "does not hold" if "disagrees" in outcomes else "undecided"


def outcome_of_direction(comparison: PairedComparison, direction: Direction) -> Outcome:
    """Whether the first method's values are the smaller (larger), as the paper says."""
    pairs, neutral = comparison.pairs, 1.0 if comparison.scale == "ratio" else 0.0
    if pairs.n_equal == len(pairs):
        return "disagrees" if len(pairs) >= comparison.fewest_models else "undecided"
    if not comparison.is_decided:
        return "undecided"
    found = "smaller" if pairs.n_less > pairs.n_more else "larger"
    if (interval := comparison.interval) is not None:
        is_on_that_side = interval.high < neutral if found == "smaller" else interval.low > neutral
        if not is_on_that_side:
            return "undecided"
    return "agrees" if found == direction else "disagrees"


def outcome_of_band(comparison: PairedComparison, value: float, tolerance: float) -> Outcome:
    """Whether the ratio (difference) is the paper's within the tolerance."""
    if len(comparison.pairs) < FEWEST:
        return "undecided"
    # No interval of three or more models: they all have the same value.
    interval = comparison.interval
    low, high = (comparison.estimate, comparison.estimate) if interval is None else (interval.low, interval.high)
    if value - tolerance <= low and high <= value + tolerance:
        return "agrees"
    return "disagrees" if high < value - tolerance or value + tolerance < low else "undecided"


def outcome_of_value(ours: float, paper: float, relative_tolerance: float) -> Outcome:
    """Whether a number on the paper's own weights is the paper's."""
    return "agrees" if abs(ours - paper) <= relative_tolerance * abs(paper) else "disagrees"
