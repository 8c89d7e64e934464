"""The plan of all ablations: how many evaluations, and how long the rest takes."""

from __future__ import annotations

from math import isnan

import pytest
import torch
from tiny_models import AMPLE, random_activation, random_chain
from torch import Generator

from libcore.ablation.plan import AblationPlan, PlannedCurve, plan_ablations
from libcore.methods import FitSettings
from libcore.methods.lib import fit_lib
from libcore.statistics import chain_statistics


def plan() -> AblationPlan:
    return AblationPlan(
        {
            ("node", "a"): PlannedCurve(most=10, passes=4),
            ("edge", "a"): PlannedCurve(most=6, passes=20),
            ("node", "b"): PlannedCurve(most=5, passes=4),
            ("edge", "b"): PlannedCurve(most=8, passes=10),
        }
    )


def test_before_anything_is_measured_there_is_no_estimate() -> None:
    assert isnan(plan().seconds_left())
    assert (plan().most("node"), plan().most("edge"), plan().left, plan().done) == (15, 14, 29, 0)


def test_curves_not_begun_cost_what_others_did_for_each_pass() -> None:
    one = plan()
    one.evaluated("node", "a", seconds=2.0)
    # Half a second for each pass, of features and, for want of better, of edges.
    assert one.seconds_left() == pytest.approx(9 * 2.0 + 6 * 20 * 0.5 + 5 * 4 * 0.5 + 8 * 10 * 0.5)
    one.evaluated("edge", "a", seconds=40.0)
    # The features' curve has ended: of all curves one is worked on at a time.
    assert one.seconds_left() == pytest.approx(5 * 40.0 + 5 * 4 * 0.5 + 8 * 10 * 2.0)
    assert (one.done, one.left) == (2, 5 + 5 + 8)


def test_what_comes_before_the_first_evaluation_is_not_counted_again() -> None:
    one = AblationPlan({("node", "a"): PlannedCurve(most=10, passes=1)})
    one.evaluated("node", "a", seconds=100.0)
    one.evaluated("node", "a", seconds=1.0)
    one.evaluated("node", "a", seconds=2.0)
    assert one.seconds_left() == pytest.approx(7 * 1.5)


def test_every_layer_but_the_last_is_planned_and_edges_where_there_are_any(generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 12, 3, 4)
    bases = fit_lib(chain, inputs, chain_statistics(chain, inputs, AMPLE), FitSettings())
    planned = plan_ablations(chain, bases, {"middle": torch.zeros(1)}, [0.1, 0.2])
    assert set(planned.curves) == {("node", "before"), ("node", "middle"), ("node", "after"), ("edge", "middle")}
    for layer in ("before", "middle", "after"):
        assert planned.curves["node", layer].most == bases[layer].n_features + 1
    # 4 x 4 coordinates: 1, 2, 4, 8 upwards, all edges, and three steps between two of them for each of two tolerances.
    assert planned.curves["edge", "middle"].most == 4 + 1 + 2 * 3
