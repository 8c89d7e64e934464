"""`python -m experiments.evidence.coverage`: how often nominal 95 % intervals hold the truth, and claims are false.

Models are drawn whose counts and whose ratios of two methods' counts are log-normal, as many as a sweep has seeds; each
comparison's interval is held against the ratio that was drawn from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import get_args

import numpy as np

from experiments.evidence.comparison import compared
from experiments.evidence.intervals import Interval, IntervalName, interval_of_mean
from experiments.evidence.pairs import Pairs

N_MODELS = (3, 5, 10, 20, 50, 100)
RATIO, SPREAD_OF_RATIOS = 0.8, 0.25
TYPICAL_COUNT, SPREAD_OF_COUNTS = 900.0, 0.3
"""Geometric means, and standard deviations of logarithms."""


@dataclass(frozen=True)
class Coverage:
    """Shares of the simulated comparisons of `n_models` each.

    Attributes:
        rule: of intervals that reports give hold the true ratio.
        by_method: of each way to find an interval.
        false_claims: of methods without a difference are called different.
    """

    n_models: int
    rule: float
    by_method: dict[IntervalName, float]
    false_claims: float


def simulated(n_models: int, n_comparisons: int, ratio: float, seed: int) -> Iterator[Pairs]:
    """Whole counts of two methods on models."""
    rng = np.random.default_rng((seed, n_models))
    for _ in range(n_comparisons):
        theirs = TYPICAL_COUNT * np.exp(SPREAD_OF_COUNTS * rng.standard_normal(n_models))
        ours = theirs * ratio * np.exp(SPREAD_OF_RATIOS * rng.standard_normal(n_models))
        yield Pairs(tuple(np.rint(ours).tolist()), tuple(np.rint(theirs).tolist()))


def coverage(n_models: int, n_comparisons: int, methods: Sequence[IntervalName], seed: int = 0) -> Coverage:
    """Of comparisons of so many models each; `methods` are looked at beside the rule."""
    truth, rule = log(RATIO), 0
    held: dict[IntervalName, int] = dict.fromkeys(methods, 0)
    for pairs in simulated(n_models, n_comparisons, RATIO, seed):
        rule += holds(compared(pairs, "ratio").interval, exp(truth))
        for method in methods:
            held[method] += holds(interval_of_mean(pairs.log_ratios, method), truth)
    null = simulated(n_models, n_comparisons, 1.0, seed + 1)
    false = sum(compared(pairs, "ratio").is_decided for pairs in null)
    shares: dict[IntervalName, float] = {method: count / n_comparisons for method, count in held.items()}
    return Coverage(n_models, rule / n_comparisons, shares, false / n_comparisons)


def holds(interval: Interval | None, truth: float) -> bool:
    """Whether there is an interval that the truth lies in."""
    return interval is not None and interval.low <= truth <= interval.high


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table in Markdown, a row as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m experiments.evidence.coverage", description=__doc__)
    parser.add_argument("--comparisons", type=int, default=1000, help="of each number of models (default: %(default)s)")
    parser.add_argument("--models", type=int, nargs="+", default=N_MODELS, help="numbers of models")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(arguments)
    if parsed.comparisons < 1 or min(parsed.models) < 1 or parsed.seed < 0:
        parser.error("--comparisons and --models: expected whole numbers from 1, --seed from 0")
    methods: tuple[IntervalName, ...] = get_args(IntervalName)
    print(f"| models | reports' rule | {' | '.join(methods)} | false claims |")
    print("|---:" * (len(methods) + 3) + "|")
    for n_models in parsed.models:
        found = coverage(n_models, parsed.comparisons, methods, parsed.seed)
        shares = [found.rule, *found.by_method.values(), found.false_claims]
        print(f"| {n_models} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
