"""How large a paired difference is, beside how sure it is."""

from __future__ import annotations

from math import exp

import numpy as np
from jaxtyping import Float

from experiments.evidence.pairs import Pairs


def rank_biserial(differences: Float[np.ndarray, " pair"]) -> float | None:
    """Matched-pairs rank-biserial correlation, -1 (all negative) to 1 (all positive); None where all are zero.

    Sum of the ranks of positive differences less that of negative ones, over both (Kerby 2014); zeros are left out.
    """
    differences = differences[differences != 0]
    if len(differences) == 0:
        return None
    if len(differences) == 1:
        return float(np.sign(differences[0]))
    from scipy.stats import rankdata

    ranks = rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def ratio_of_geometric_means(pairs: Pairs) -> float | None:
    """The first method's geometric mean over the second's; None where a value is not above zero."""
    return exp(pairs.log_ratios.mean()) if pairs.have_ratios else None


def standardized_mean(values: Float[np.ndarray, " pair"]) -> float | None:
    """Mean over standard deviation; None for fewer than two values, or without a spread."""
    if len(values) < 2 or (spread := float(values.std(ddof=1))) <= 1e-12 * float(np.abs(values).max()):
        return None
    return float(values.mean()) / spread
