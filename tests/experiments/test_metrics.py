"""Keys and values of metrics.json."""

from __future__ import annotations

from math import isnan

import pytest
import torch
from running import MID, OUTPUT, PRE

from experiments.config.scores import Score
from experiments.pipeline.ablations import Ablations, ablations_from_json, ablations_to_json, plain
from experiments.pipeline.metrics import ablation_metrics, aliases, feature_metrics, resource_metrics, sparsity_metrics
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
