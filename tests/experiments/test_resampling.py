"""Intervals of needed counts over test examples: what a run measures, keeps and says."""

from __future__ import annotations

import math

import pytest
from running import NODE_LAYERS, QUICK, TOLERANCES, quick_run, read_json, reused, run_here

from experiments.pipeline.metric_keys import MetricKey, is_interval_end, parse_metric
from experiments.pipeline.resampling import finite_ends, intervals_from_json, intervals_to_json

INTERVALS = "analysis.resamples=200"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("resampled")


@pytest.fixture(scope="module")
def run(outputs):
    return run_here(outputs, "first", *QUICK, INTERVALS)


class TestRun:
    def test_every_needed_count_has_an_interval_around_it(self, run):
        metrics = read_json(run / "metrics.json")
        counted = [key for key in metrics if parse_metric(key).kind.endswith("/needed")]
        assert len(counted) == 2 * len(TOLERANCES) * len(NODE_LAYERS)
        for key in counted:
            low, high = (metrics[key.replace("needed_", f"needed_{end}_")] for end in ("low", "high"))
            assert low <= (math.inf if high is None else high)
            assert low >= 0
            if not key.endswith("/total"):
                assert low <= metrics[key] <= (math.inf if high is None else high), key
        assert any(metrics[key] != metrics[key.replace("needed_", "needed_low_")] for key in counted)

    def test_all_else_is_as_without_and_the_stages_before_are_found_again(self, run, outputs, tmp_path_factory):
        plain = read_json(quick_run(tmp_path_factory.getbasetemp()) / "metrics.json")
        ours = read_json(run / "metrics.json")
        differing = {key for key in plain if ours[key] != plain[key]}
        assert {key.partition("/")[0] for key in differing} <= {"time", "memory"}
        assert {"time/resampling", "memory/resampling"} < ours.keys() - plain.keys()
        again = run_here(outputs, "again", *QUICK, INTERVALS)
        assert all(reused(again).values())
        ends = {key for key in ours if is_interval_end(key)}
        assert {key: ours[key] for key in ends} == {
            key: value for key, value in read_json(again / "metrics.json").items() if key in ends
        }
        more = reused(run_here(outputs, "more", *QUICK, "analysis.resamples=300"))
        assert [stage for stage, was_reused in more.items() if not was_reused] == ["resampling"]

    def test_little_memory_finds_the_same(self, run, outputs):
        tight = run_here(outputs / "tight", "tight", *QUICK, INTERVALS, "analysis.memory_budget=1MB")
        ours, theirs = (read_json(one / "metrics.json") for one in (run, tight))
        assert {key: ours[key] for key in ours if is_interval_end(key)} == {
            key: theirs[key] for key in theirs if is_interval_end(key)
        }

    def test_nothing_by_default(self, tmp_path_factory):
        quick = quick_run(tmp_path_factory.getbasetemp())
        assert not any(is_interval_end(key) for key in read_json(quick / "metrics.json"))
        assert "resampling" not in read_json(quick / "timings.json")


def test_keys_in_their_parts():
    assert parse_metric("edges/needed_low_0.001/layers.0") == MetricKey("edges/needed_low", 0.001, "layers.0")
    assert is_interval_end("features/needed_high_0.05/total")
    assert not is_interval_end("features/needed_0.05/total")


def test_an_end_that_is_none_is_null_in_files():
    intervals = {
        "features": {"layers.0": {0.001: finite_ends((3.0, math.inf)), 0.05: finite_ends((2.0, 4.0))}},
        "edges": {},
    }
    content = intervals_to_json(intervals)
    assert content == {"features": {"layers.0": {"0.001": [3, None], "0.05": [2, 4]}}, "edges": {}}
    assert intervals_to_json(intervals_from_json(content)) == content
