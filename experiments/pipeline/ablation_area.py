"""The area under an ablation curve: the score lost, as a mean over numbers kept, without any tolerance."""

from __future__ import annotations

from math import log

import numpy as np

from libcore.ablation import AblationCurve


def ablation_area(curve: AblationCurve, n_all: int, test_score: float, lower_is_better: bool) -> float:
    """Mean score lost over numbers kept from 1 to `n_all`, each doubling of the number weighing the same.

    `1 / ln(n_all) * integral from 1 to n_all of lost(n) / n dn`, in units of the score: `lost(n)` is by how much the
    score with `n` kept is worse than `test_score` (negative where it is better), linear in `ln n` between numbers that
    were evaluated, and beyond the smallest and the largest of them as there. A point more on the curve does not change
    it; nor does a basis that has dropped directions get a shorter axis. NaN where a score is none.

    Args:
        curve: scores by number kept; that with none counts only where there is no other, as where there are no edges.
        n_all: the axis' end, the same for all methods: the width of a node layer, or the product of two.
        test_score: of the model as it is.
        lower_is_better: whether a larger score is a worse one.

    Raises ValueError for a curve without any score.
    """
    if not curve.score_by_kept:
        raise ValueError("an ablation curve without any score has no area")
    kept = [n for n in sorted(curve.score_by_kept) if n >= 1] or [0]
    sign = 1.0 if lower_is_better else -1.0
    lost = [sign * (curve.score_by_kept[n] - test_score) for n in kept]
    if n_all <= 1 or len(kept) == 1:
        return lost[0]
    inside = [n for n in kept if 1 < n < n_all]
    at = np.log([1, *inside, n_all])
    values = np.interp(at, np.log(kept), lost)
    return float((np.diff(at) * (values[1:] + values[:-1])).sum() / 2 / log(n_all))
