"""How much work the ablations of a whole model are: a bound before they start, and a guess at the time that is left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from libcore.ablation.schedule import bisection_evaluations, ladder
from libcore.ablation.whole_model import Ablated, AblationKind
from libcore.basis import Basis
from libcore.chain import Chain


@dataclass
class PlannedCurve:
    """The evaluations of one node layer's curve.

    Attributes:
        most: how many there are at most.
        passes: passes through a section that one evaluation takes at most: its cost beside that of other curves.
        done: how many there were.
        ended: whether no more come.
        first_seconds: what the first took, with all that is prepared before it.
        later_seconds: what the others took, in all.
    """

    most: int
    passes: int
    done: int = 0
    ended: bool = False
    first_seconds: float = 0.0
    later_seconds: float = 0.0

    @property
    def left(self) -> int:
        """How many may still follow."""
        return 0 if self.ended else self.most - self.done

    @property
    def seconds_each(self) -> float:
        """Seconds of an evaluation, preparations left out as soon as they can be told apart."""
        return self.later_seconds / (self.done - 1) if self.done > 1 else self.first_seconds


class AblationPlan:
    """All curves of a model, by kind and node layer."""

    def __init__(self, curves: dict[tuple[AblationKind, str], PlannedCurve]) -> None:
        self.curves = curves

    @property
    def done(self) -> int:
        """Evaluations carried out."""
        return sum(curve.done for curve in self.curves.values())

    @property
    def left(self) -> int:
        """Evaluations that may still follow."""
        return sum(curve.left for curve in self.curves.values())

    def most(self, kind: AblationKind) -> int:
        """Evaluations of one kind, at most."""
        return sum(curve.most for (of_kind, _), curve in self.curves.items() if of_kind == kind)

    def evaluated(self, kind: AblationKind, layer: str, seconds: float) -> None:
        """One evaluation more. Curves come one after the other: those begun before this one have ended."""
        for key, begun in self.curves.items():
            begun.ended = begun.done > 0 and key != (kind, layer)
        curve = self.curves[kind, layer]
        if curve.done:
            curve.later_seconds += seconds
        else:
            curve.first_seconds = seconds
        curve.done += 1

    def seconds_left(self) -> float:
        """Time that what is left takes at most, at the speed of what was done: an estimate, NaN before all else.

        A curve not begun is taken to cost as much per pass as those of its kind that were, or as the other kind's.
        """
        seconds = 0.0
        for (kind, _), curve in self.curves.items():
            if curve.done:
                seconds += curve.left * curve.seconds_each
            elif curve.left:
                seconds += curve.left * curve.passes * self.seconds_per_pass(kind)
        return seconds

    def seconds_per_pass(self, kind: AblationKind) -> float:
        """Mean over the curves of this kind that were begun, else over all that were; NaN where there are none."""
        begun = [(of_kind, curve) for (of_kind, _), curve in self.curves.items() if curve.done]
        measured = [curve for of_kind, curve in begun if of_kind == kind] or [curve for _, curve in begun]
        if not measured:
            return float("nan")
        return sum(curve.seconds_each / curve.passes for curve in measured) / len(measured)


def plan_ablations(
    chain: Chain,
    bases: dict[str, Basis],
    layers_with_edges: Collection[str],
    tolerances: Sequence[float],
    which: Ablated | None = None,
) -> AblationPlan:
    """Node ablation of every node layer but the last, edge ablation of those with edges, of those that are ablated."""
    which = which or Ablated()
    curves: dict[tuple[AblationKind, str], PlannedCurve] = {}
    n_sections = len(chain.sections)
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        basis, next_basis = bases[layer], bases[next_layer]
        if which.has_nodes(layer):
            most = most_numbers(basis.n_features, tolerances, which)
            curves["node", layer] = PlannedCurve(most, passes=n_sections + 1)
        if layer in layers_with_edges and which.has_edges(layer):
            most = most_by_bisection(basis.d * next_basis.d, tolerances)
            curves["edge", layer] = PlannedCurve(most, passes=next_basis.n_features + n_sections - index)
    return AblationPlan(curves)


def most_numbers(n_features: int, tolerances: Sequence[float], which: Ablated) -> int:
    """Numbers of features that one node layer is evaluated with, at most."""
    schedule = which.schedule(n_features)
    if schedule is None:
        return most_by_bisection(n_features, tolerances)
    return n_features + 1 if tolerances else len(schedule)


def most_by_bisection(upper: int, tolerances: Sequence[float]) -> int:
    """Evaluations of `bisection_steps`, at most."""
    return len(ladder(upper)) + 1 + len(tolerances) * bisection_evaluations(upper // 2) if tolerances else 0
