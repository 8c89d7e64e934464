"""A comparison in one sentence that cannot be read as more than it is."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.evidence.comparison import PairedComparison
from experiments.evidence.intervals import FEWEST


@dataclass(frozen=True)
class Wording:
    """How a measure is spoken of.

    Attributes:
        verb: what a method does, `{}` for the relation: `needs {} edges`, `has {} modularity`.
        less: the relation, where the value is smaller: `fewer`, `a lower`.
        more: where it is larger.
        equal: where it is the same: `as many`, `the same`.
    """

    verb: str
    less: str
    more: str
    equal: str

    def claim(self, ours: str, theirs: str, relation: str) -> str:
        """`LIB needs fewer edges than PCA`."""
        return f"{ours} {self.verb.format(relation)} {'as' if relation == self.equal else 'than'} {theirs}"


def sentence(comparison: PairedComparison, ours: str, theirs: str, wording: Wording, family: str = "layers") -> str:
    """What was found, of how many models, and whether it is decided.

    `family` says what the p is corrected over.
    """
    pairs, n = comparison.pairs, len(comparison.pairs)
    relation = relation_of(comparison, wording)
    claim = wording.claim(ours, theirs, relation)
    if n == 1:
        values = f"{short(pairs.ours[0])} against {short(pairs.theirs[0])}"
        return f"{claim} in the one model compared ({values}), which says nothing of others{left_out(comparison)}."
    if pairs.n_equal == n:
        return f"{claim} in all {n} models: nothing to decide{left_out(comparison)}."
    counts = {wording.less: pairs.n_less, wording.more: pairs.n_more, wording.equal: pairs.n_equal}
    others = "".join(
        f", {word.removeprefix('a ')} in {count}" for word, count in counts.items() if word != relation and count
    )
    size = f"{comparison.scale} {short(comparison.estimate)}, {interval_text(comparison)}"
    return f"{claim} in {counts[relation]} of {n} models{others} ({p_text(comparison, family)}); {size}" + (
        f"{left_out(comparison)}."
    )


def relation_of(comparison: PairedComparison, wording: Wording) -> str:
    """The direction of most models, else that of the estimate."""
    pairs = comparison.pairs
    if not pairs.n_less and not pairs.n_more:
        return wording.equal
    if pairs.n_less != pairs.n_more:
        return wording.less if pairs.n_less > pairs.n_more else wording.more
    return wording.less if comparison.estimate < (1 if comparison.scale == "ratio" else 0) else wording.more


def p_text(comparison: PairedComparison, family: str) -> str:
    """`exact sign test p = 0.25, two-sided: undecided`."""
    of_family = (
        f", {short(comparison.corrected_p, 2)} corrected for {comparison.n_tests} {family}"
        if comparison.n_tests > 1
        else ""
    )
    verdict = "decided" if comparison.is_decided else "undecided"
    return f"exact {comparison.test} p = {short(comparison.p, 2)}, two-sided{of_family}: {verdict}"


def interval_text(comparison: PairedComparison) -> str:
    """`95 % interval 0.62 to 0.83 over models`, or why there is none."""
    if (interval := comparison.interval) is not None:
        return f"95 % interval {short(interval.low)} to {short(interval.high)} over models"
    if len(comparison.pairs) < FEWEST:
        return f"no interval from {len(comparison.pairs)} models"
    return "no interval, being the same in every model"


def left_out(comparison: PairedComparison) -> str:
    """How many models are not in it."""
    n = comparison.pairs.left_out
    return f"; {n} {'model' if n == 1 else 'models'} left out, of which only one method has a value" if n else ""


def short(value: float, digits: int = 3) -> str:
    """With three significant digits; whole numbers up to a million as they are."""
    if float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"
