"""How far two disjoint halves of the data are apart: what a difference between methods is to be held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from experiments.evidence.comparison import PairedComparison, Scale
from experiments.evidence.sentences import short


@dataclass(frozen=True)
class NoiseFloor:
    """One measure on both halves of the same data, models and methods being the same.

    Attributes:
        scale: what halves are compared by.
        apart: mean over pairs of halves of the magnitude of their log-ratio, or of their difference.
        n_pairs: pairs of halves.
    """

    scale: Scale
    apart: float
    n_pairs: int

    @property
    def text(self) -> str:
        """`a factor of 1.08`, `0.02`, `nothing`."""
        if self.apart == 0:
            return "nothing"
        return f"a factor of {short(exp(self.apart), 4)}" if self.scale == "ratio" else short(self.apart)

    def times(self, estimate: float) -> float | None:
        """How often the halves' distance a ratio (or difference) of methods is; None where halves are equal."""
        if self.apart == 0:
            return None
        return abs(log(estimate) if self.scale == "ratio" else estimate) / self.apart

    def sentence(self, comparison: PairedComparison) -> str:
        """A difference of methods against the floor, in words."""
        of = f"{self.n_pairs} {'pair' if self.n_pairs == 1 else 'pairs'} of halves"
        if (times := self.times(comparison.estimate)) is None:
            return f"Two halves of the data do not differ ({of})."
        as_logarithms = ", as logarithms" if self.scale == "ratio" else ""
        return (
            f"The difference is {short(times, 2)} times what two halves of the data differ by "
            f"({self.text} on the mean of {of}{as_logarithms})."
        )


def noise_floor(halves: Sequence[tuple[float, float]], scale: Scale) -> NoiseFloor | None:
    """Of pairs of values, one for each half; None without a pair, and for a ratio of values that are not above zero."""
    if not halves or (scale == "ratio" and min(min(pair) for pair in halves) <= 0):
        return None
    distances = [abs(log(one / other)) if scale == "ratio" else abs(one - other) for one, other in halves]
    return NoiseFloor(scale, fmean(distances), len(halves))
