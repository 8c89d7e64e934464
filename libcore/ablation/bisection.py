"""How many of something are needed, by bisection from below: of edges, and of features where each number is costly."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from libcore.ablation.evaluation import AblationCurve
from libcore.ablation.schedule import Bracket, ladder
from libcore.ablation.steps import KeptAndScore


def bisection_steps(
    score_of: Callable[[int], float],
    upper: int,
    n_all: int,
    tolerances: Sequence[float],
    within: Callable[[float, float], bool],
) -> Generator[KeptAndScore, None, AblationCurve]:
    """Scores with the first so many kept of `n_all`, until the needed number is known at every tolerance.

    It comes from the published bisection between 0 and `upper`, taken from below: the numbers that it would halve its
    way down are tried upwards, from one to the first that is enough at every tolerance, and those above are taken to be
    enough. It then goes on as published. Few cost little, and the curve is drawn down to one on the way. All are tried
    too: a basis may not do with all that it has kept.

    Args:
        score_of: by how many are kept.
        upper: of the bracket, `n_all` or more.
        n_all: how many there are.
        tolerances: none, and nothing is evaluated.
        within: `(score, tolerance) -> bool`.
    """
    curve = AblationCurve()
    scored = curve.score_by_kept

    def evaluated(kept: int) -> KeptAndScore:
        scored[kept] = score_of(kept)
        return kept, scored[kept]

    def is_enough(kept: int, tolerance: float) -> bool:
        return within(scored[min(kept, n_all)], tolerance)

    tried: list[int] = []
    for kept in ladder(upper) if tolerances else ():
        if min(kept, n_all) not in scored:
            yield evaluated(min(kept, n_all))
        tried.append(kept)
        if all(is_enough(kept, tolerance) for tolerance in tolerances):
            break
    for tolerance in tolerances:
        bracket = Bracket(too_few=0, enough=upper).from_below([(kept, is_enough(kept, tolerance)) for kept in tried])
        while (middle := bracket.middle) is not None:
            if min(middle, n_all) not in scored:
                yield evaluated(min(middle, n_all))
            bracket = bracket.halved(middle, is_enough(middle, tolerance))
        curve.needed[tolerance] = min(bracket.enough, n_all)
    if tolerances and n_all not in scored:
        yield evaluated(n_all)
    return curve
