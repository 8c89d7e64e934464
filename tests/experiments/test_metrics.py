"""Keys and values of metrics.json."""

from __future__ import annotations

from math import isnan, log, nan

import pytest
import torch
from running import MID, OUTPUT, PRE

from experiments.config.scores import Score
from experiments.pipeline.ablation_area import ablation_area
from experiments.pipeline.ablations import Ablations, ablations_from_json, ablations_to_json
from experiments.pipeline.metric_keys import plain
from experiments.pipeline.metrics import (
    ablation_metrics,
    aliases,
    area_metrics,
    feature_metrics,
    resource_metrics,
    sparsity_metrics,
)
from experiments.pipeline.resources import Resources
from libcore.ablation import AblationCurve
from libcore.basis import Basis
from libcore.graph import InteractionGraph

ABLATIONS = Ablations(
    0.9,
    nodes={PRE: AblationCurve({4: 0.9, 3: 0.85, 0: 0.1}, {0.001: 4, 0.1: 3})},
    edges={
        PRE: AblationCurve({8: 0.9, 2: 0.8}, {0.001: 8, 0.1: 2}),
        MID: AblationCurve({5: 0.9}, {0.001: 5, 0.1: 5}),
    },
)


@pytest.mark.parametrize(
    ("tolerance", "written"),
    [(0.001, "0.001"), (0.05, "0.05"), (1e-5, "0.00001"), (0.0, "0"), (1.0, "1"), (10.0, "10"), (0.1 + 0.2, "0.3")],
)
def test_tolerances_are_written_as_plain_numbers(tolerance, written):
    assert plain(tolerance) == written


def test_needed_features_and_edges_with_their_total():
    assert ablation_metrics(ABLATIONS) == {
        f"features/needed_0.001/{PRE}": 4,
        f"features/needed_0.1/{PRE}": 3,
        "features/needed_0.001/total": 4,
        "features/needed_0.1/total": 3,
        f"edges/needed_0.001/{PRE}": 8,
        f"edges/needed_0.1/{PRE}": 2,
        f"edges/needed_0.001/{MID}": 5,
        f"edges/needed_0.1/{MID}": 5,
        "edges/needed_0.001/total": 13,
        "edges/needed_0.1/total": 7,
    }


class TestAblationArea:
    def area(self, scores: dict[int, float], n_all: int = 16, lower_is_better: bool = False) -> float:
        return ablation_area(AblationCurve(scores, {}), n_all, 0.9, lower_is_better)

    def test_closed_form(self):
        """Half of the score lost up to 4 of 16, that is halfway, then falling to nothing: 1/2 * 1/2 + 1/2 * 1/4."""
        assert self.area({0: 0.0, 1: 0.4, 4: 0.4, 16: 0.9}) == pytest.approx(0.375)

    def test_points_on_the_curve_change_nothing(self):
        few = {1: 0.1, 16: 0.9}
        more = few | {2: 0.3, 4: 0.5, 8: 0.7, 0: -100.0}
        assert self.area(few) == pytest.approx(self.area(more)) == pytest.approx(0.4)

    def test_dropped_directions_do_not_shorten_the_axis(self):
        assert self.area({1: 0.1, 4: 0.9}) == pytest.approx(self.area({1: 0.1, 4: 0.9, 16: 0.9})) == pytest.approx(0.2)
        assert self.area({1: 0.8, 4: 0.8}) == pytest.approx(0.1)

    def test_a_curve_that_goes_further_is_cut(self):
        assert self.area({1: 0.9, 4: 0.9, 16: 0.1}, n_all=4) == pytest.approx(0)

    def test_a_score_that_is_better_lower(self):
        assert self.area({1: 1.9, 16: 0.9}, lower_is_better=True) == pytest.approx(0.5)

    def test_a_score_that_is_no_number_leaves_none(self):
        assert isnan(self.area({1: nan, 4: 0.5, 16: 0.9}))

    def test_the_narrowest_axis_and_no_curve(self):
        assert self.area({1: 0.7}, n_all=1) == pytest.approx(0.2)
        with pytest.raises(ValueError, match="no area"):
            self.area({})

    def test_without_any_edge_the_score_is_that_with_none(self):
        assert self.area({0: 0.1}) == pytest.approx(0.8)

    def test_metrics_are_over_the_layers_widths(self):
        """Of edges from PRE 0.1 are lost up to 2 of 5 * 4, and nothing from 8 on."""
        bases = {
            layer: Basis(torch.eye(d)[:, :3], torch.eye(d)[:3], torch.ones(3), has_constant=True)
            for layer, d in ((PRE, 5), (MID, 4), (OUTPUT, 2))
        }
        found = area_metrics(ABLATIONS, InteractionGraph((PRE, MID, OUTPUT), {}, bases, {}))
        of_pre = 0.1 * (log(2) + log(4) / 2) / log(20)
        features = 0.05 * (log(3) + log(4 / 3) / 2) / log(5)
        assert found == pytest.approx(
            {
                f"features/ablation_area/{PRE}": features,
                "features/ablation_area/total": features,
                f"edges/ablation_area/{PRE}": of_pre,
                f"edges/ablation_area/{MID}": 0.0,
                "edges/ablation_area/total": of_pre,
            }
        )

    def test_a_curve_that_was_not_drawn_has_no_key(self):
        basis = Basis(torch.eye(2), torch.eye(2), torch.ones(2), has_constant=False)
        graph = InteractionGraph((PRE, MID), {}, dict.fromkeys((PRE, MID), basis), {})
        assert area_metrics(Ablations(0.9, nodes={}, edges={PRE: AblationCurve()}), graph) == {}


def test_ablations_survive_their_file():
    assert ablations_from_json(ablations_to_json(ABLATIONS)) == ABLATIONS


def test_a_cross_entropy_s_file_says_so_and_survives_an_overflow():
    ablations = Ablations(
        1.5, Score("cross-entropy", lower_is_better=True), {PRE: AblationCurve({4: 1.5, 0: 9.0}, {0.01: 4})}
    )
    content = ablations_to_json(ablations)
    assert content["score"] == {"name": "cross-entropy", "lower_is_better": True}
    assert ablations_from_json(content) == ablations
    content["node_ablation"][PRE]["0"] = None
    assert isnan(ablations_from_json(content).nodes[PRE].score_by_kept[0])


def test_a_file_that_does_not_name_its_score_has_accuracies():
    content = ablations_to_json(ABLATIONS)
    del content["score"]
    assert ablations_from_json(content) == ABLATIONS


def test_features_are_counted_with_the_constant_and_sparsity_is_measured_without():
    bases = {
        PRE: Basis(torch.eye(5)[:, :3], torch.eye(5)[:3], torch.ones(5), has_constant=True),
        OUTPUT: Basis(torch.eye(4), torch.eye(4), torch.ones(4), has_constant=False),
    }
    edges = torch.zeros(4, 3)
    edges[:, 0] = 100.0
    edges[1, 2] = 3.0
    graph = InteractionGraph((PRE, OUTPUT), {}, bases, {PRE: edges})
    assert feature_metrics(bases) == {f"features/kept/{PRE}": 3, f"features/kept/{OUTPUT}": 4}
    # One of 4 x 2 edges among features that vary holds everything.
    assert sparsity_metrics(graph) == pytest.approx(
        {
            f"edges/hoyer/{PRE}": 1.0,
            f"edges/gini/{PRE}": 7 / 8,
            f"edges/participation/{PRE}": 1.0,
            f"edges/mass99/{PRE}": 1 / 8,
        }
    )


def test_seconds_and_bytes_of_every_stage():
    assert resource_metrics("basis", Resources(1.5, 10)) == {"time/basis": 1.5, "memory/basis": 10}


def test_aliases_are_totals_at_the_tightest_tolerance():
    metrics = ablation_metrics(ABLATIONS) | {"features/kept/a": 3, "features/kept/b": 4, "graph/modularity": 0.25}
    metrics |= {"score/test": 0.5, "time/model": 1.0, "time/basis": 2.0, "memory/basis": 10}
    assert aliases(metrics) == {
        "features_needed_total": 4,
        "edges_needed_total": 13,
        "features_kept_total": 7,
        "modularity": 0.25,
        "test_score": 0.5,
        "seconds_total": 3.0,
    }
    assert aliases({}) == {}
