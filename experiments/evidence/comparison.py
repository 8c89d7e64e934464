"""All that is known of one measure of two methods on the same models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp
from typing import Literal

import numpy as np

from experiments.evidence.corrections import CORRECTIONS, HOLM, Correction, divisor
from experiments.evidence.effect_sizes import rank_biserial, ratio_of_geometric_means, standardized_mean
from experiments.evidence.exact_tests import WILCOXON_UP_TO, TestName, sign_test, test_for, wilcoxon
from experiments.evidence.intervals import Interval, interval_of_mean
from experiments.evidence.needed_models import ALPHA, fewest_models, models_at_effect, models_if_all_agree
from experiments.evidence.pairs import Pairs

Scale = Literal["ratio", "difference"]


@dataclass(frozen=True)
class PairedComparison:
    """A measure's first method beside its second.

    Attributes:
        scale: what `estimate` and `interval` are of: the ratio of geometric means, or the mean difference.
        estimate: of the models there are.
        interval: nominal 95 % over models; None where there is none (`interval_of_mean`).
        median_difference: over models, in the measure's unit.
        p_sign: of the exact sign test, two-sided.
        p_wilcoxon: of Wilcoxon's signed-rank test, exact; of log-ratios on the ratio scale; None above 200 models.
        test: which of the two `p` is.
        rank_biserial: effect size from -1 to 1; None where nothing differs.
        standardized: mean over standard deviation on the scale (log-ratios or differences); None without a spread.
        corrected_p: for all of a family of `n_tests` comparisons.
        n_divided: by how much that divides the level of one of them where all agree.
    """

    pairs: Pairs
    scale: Scale
    estimate: float
    interval: Interval | None
    median_difference: float
    p_sign: float
    p_wilcoxon: float | None
    test: TestName
    rank_biserial: float | None
    standardized: float | None
    corrected_p: float
    n_tests: int = 1
    n_divided: int = 1

    @property
    def p(self) -> float:
        """Before correction."""
        return self.p_sign if self.test == "sign test" or self.p_wilcoxon is None else self.p_wilcoxon

    @property
    def is_decided(self) -> bool:
        """Whether the corrected p is at most 0.05, and most models lie on the side that the test found.

        Wilcoxon's test also says no to differences that are skewed about zero: a few large ones against many small.
        """
        majority = self.pairs.n_more - self.pairs.n_less
        return self.corrected_p <= ALPHA and (self.rank_biserial or 0.0) * majority > 0

    @property
    def fewest_models(self) -> int:
        """Models that differ, below which no outcome is decided."""
        return fewest_models(self.n_divided)

    @property
    def models_if_all_agree(self) -> int | None:
        """Models in all that decide if each further one agrees with the majority."""
        needed = models_if_all_agree(self.pairs.n_less, self.pairs.n_more, self.n_divided)
        return None if needed is None else needed + self.pairs.n_equal

    @cached_property
    def models_at_effect(self) -> int | None:
        """Models in all that decide in four of five repetitions if the effect is as observed."""
        return models_at_effect(self.standardized, self.n_divided)


def compared(pairs: Pairs, scale: Scale) -> PairedComparison:
    """Everything but the correction; of a ratio, its difference where a value is not above zero.

    Raises ValueError where there is no pair.
    """
    if not len(pairs):
        raise ValueError("no model that both methods have a value of")
    ratio = ratio_of_geometric_means(pairs) if scale == "ratio" else None
    values = pairs.differences if ratio is None else pairs.log_ratios
    interval = interval_of_mean(values)
    if ratio is not None and interval is not None:
        interval = replace(interval, low=exp(interval.low), high=exp(interval.high))
    n_nonzero = pairs.n_less + pairs.n_more
    test, p_sign = test_for(n_nonzero), sign_test(pairs.n_less, pairs.n_more)
    found = PairedComparison(
        pairs=pairs,
        scale="difference" if ratio is None else "ratio",
        estimate=float(pairs.differences.mean()) if ratio is None else ratio,
        interval=interval,
        median_difference=float(np.median(pairs.differences)),
        p_sign=p_sign,
        p_wilcoxon=wilcoxon(values) if n_nonzero <= WILCOXON_UP_TO else None,
        test=test,
        rank_biserial=rank_biserial(values),
        standardized=standardized_mean(values),
        corrected_p=1.0,
    )
    return replace(found, corrected_p=found.p)


def corrected(family: Sequence[PairedComparison], correction: Correction = HOLM) -> list[PairedComparison]:
    """The same comparisons, their p corrected for each other."""
    p_values, n_tests = CORRECTIONS[correction]([one.p for one in family]), len(family)
    n_divided = divisor(correction, n_tests)
    return [
        replace(one, corrected_p=p, n_tests=n_tests, n_divided=n_divided)
        for one, p in zip(family, p_values, strict=True)
    ]
