"""Node ablation: how many features of one node layer the model's score needs (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from libcore.ablation.bisection import bisection_steps
from libcore.ablation.evaluation import AblationCurve, EvaluationData
from libcore.ablation.examples import Block, Examples, part_of, sums
from libcore.ablation.steps import KeptAndScore, carried_out
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections import compose
from libcore.sections.base import KeptEvaluation
from libcore.sections.kept import kept_evaluation
from libcore.sections.merging import merged
from libcore.streams import ActivationStream

NUMBERS_AT_A_TIME = 16
"""Numbers of kept features that a block of examples is scored with while it is in the caches."""


def node_ablation_steps(
    chain: Chain,
    data: EvaluationData,
    index: int,
    basis: Basis,
    schedule: Iterable[int] | None,
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
    stream: ActivationStream | None = None,
) -> Generator[KeptAndScore, None, AblationCurve]:
    """Keep the first `n` features of node layer number `index`, the constant counted as one; run the rest of the model.

    The needed count is the smallest `n` whose score is within tolerance. Scores need not grow with `n`, so that every
    `n` below it is tried too: after those of the schedule, what is between them, upwards. Without a schedule they are
    taken to grow, and the needed count comes from a bisection, a tenth of the evaluations where layers are wide.
    `stream` gives the layer's activations on the data; by default they are computed from the inputs.
    """
    scores_of = kept_scores(chain, data, index, basis, memory_budget, stream)

    def within(score: float, tolerance: float) -> bool:
        return data.within(score, test_score, tolerance)

    if schedule is None:
        n = basis.n_features
        return (yield from bisection_steps(lambda kept: scores_of([kept])[0], n, n, tolerances, within))
    curve = AblationCurve()
    scored = curve.score_by_kept

    def evaluated(numbers: Sequence[int]) -> Iterable[KeptAndScore]:
        for first in range(0, len(numbers), NUMBERS_AT_A_TIME):
            some = numbers[first : first + NUMBERS_AT_A_TIME]
            scored.update(zip(some, scores_of(some), strict=True))
            yield from ((kept, scored[kept]) for kept in some)

    def smallest_within(tolerance: float) -> int:
        enough = (kept for kept in sorted(scored) if within(scored[kept], tolerance))
        return next(enough, basis.n_features)

    yield from evaluated(sorted(set(schedule)))
    for tolerance in sorted(tolerances, reverse=True):
        while below := [kept for kept in range(smallest_within(tolerance) + 1) if kept not in scored]:
            yield from evaluated(below[:NUMBERS_AT_A_TIME])
        curve.needed[tolerance] = smallest_within(tolerance)
    return curve


def kept_scores(
    chain: Chain,
    data: EvaluationData,
    index: int,
    basis: Basis,
    memory_budget: int,
    stream: ActivationStream | None = None,
) -> Callable[[Sequence[int]], list[float]]:
    """Scores by ascending numbers of kept features of node layer number `index`.

    Every block of examples is scored with all numbers before the next.
    """
    stream = stream or chain.stream(data.inputs, index, memory_budget)
    examples = Examples.of(chain, data.inputs, index, memory_budget, stream)
    section, *rest = merged(chain.sections_from(index)) or (compose(()),)
    output_of = compose(rest)
    evaluations = examples.in_parts(
        lambda part, _: kept_evaluation(section, part_of(stream, part), basis), examples.parts
    )

    def scores(numbers: Sequence[int]) -> list[float]:
        def of_part(part: tuple[Block, KeptEvaluation], blocks: Iterator[Block]) -> list[float]:
            (first, _), evaluation = part
            totals, kept_outputs = [0.0] * len(numbers), evaluation(numbers)
            for start, stop in blocks:
                for number, activation in enumerate(kept_outputs(start - first, stop - first)):
                    totals[number] += data.score_sum(output_of(activation), start, stop)
            return totals

        of_parts = examples.in_parts(of_part, list(zip(examples.parts, evaluations, strict=True)))
        return [total / examples.count for total in sums(of_parts, len(numbers))]

    return scores


def node_ablation(
    chain: Chain,
    data: EvaluationData,
    index: int,
    basis: Basis,
    schedule: Iterable[int],
    tolerances: Sequence[float],
    test_score: float,
    memory_budget: int,
) -> AblationCurve:
    """`node_ablation_steps` from beginning to end."""
    return carried_out(node_ablation_steps(chain, data, index, basis, schedule, tolerances, test_score, memory_budget))
