"""What a run is said to take: as its only result, and before a stage that takes long."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from running import QUICK, TOY_MODELS, config_of, exit_status, files_below, read_json, run_here

from experiments.benchmark import main as benchmark
from experiments.benchmarks.known_decoders import DECODERS
from experiments.pipeline import estimate
from experiments.reporting.finished_runs import FinishedRun, read_run
from libcore.costs.cost import Cost

STAGES = ["score", "statistics", "basis", "edges", "node_ablation", "edge_ablation"]
PARAMETERS = {"SmolLM2-135M": 134.5e6, "GPT-2 small": 124.4e6, "Pythia-1.4B": 1311e6, "Llama-3-8B": 7505e6}
"""Published; without the embedding, which is no product, where it is not the unembedding too."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An estimate by itself."""
    folder = tmp_path_factory.mktemp("estimate")
    assert exit_status(folder, *QUICK, "analysis.estimate_only=true", "hydra.run.dir=run") == 0
    return folder / "run"


class TestEstimateOnly:
    def test_nothing_is_computed_and_the_run_is_finished(self, run: Path) -> None:
        assert files_below(run) == {"config.yaml", "metrics.json", "timings.json", "run.log", "status.json"}
        assert read_json(run / "status.json")["status"] == "finished"
        assert isinstance(read_run(run), FinishedRun)
        stages = {path.name for path in (run.parent / "outputs" / "cache").iterdir() if path.is_dir()}
        assert stages.isdisjoint({"model", "statistics", "basis", "edges", "ablation"})

    def test_every_stage_has_its_numbers(self, run: Path) -> None:
        metrics = read_json(run / "metrics.json")
        names = ("operations", "memory", "disk", "seconds")
        assert list(metrics) == [f"estimate/{stage}/{name}" for stage in STAGES for name in names]
        for stage in STAGES:
            assert metrics[f"estimate/{stage}/operations"] > 1e5
            assert metrics[f"estimate/{stage}/memory"] > 0
            assert 0 < metrics[f"estimate/{stage}/seconds"] < 10
        lines = (run / "run.log").read_text(encoding="utf-8")
        assert all(f" {stage} " in lines for stage in STAGES)
        assert "at most" in lines
        assert "GFLOP/s in float64" in lines

    def test_it_does_not_take_the_place_of_results(self, run: Path) -> None:
        """Of another estimate it does."""
        folder = run.parent
        assert exit_status(folder, *QUICK, "analysis.stages=[score,basis]", "hydra.run.dir=results") == 0
        before = files_below(folder / "results")
        assert exit_status(folder, *QUICK, "analysis.estimate_only=true", "hydra.run.dir=results") == 2
        assert files_below(folder / "results") == before
        assert exit_status(folder, *QUICK, "analysis.estimate_only=true", "hydra.run.dir=run") == 0


@pytest.mark.parametrize("model", ["cifar10_mlp", "cifar10_cnn", "block_diagonal_mlp"])
@pytest.mark.parametrize("method", ["pca", "lib_integrated"])
def test_of_any_model(tmp_path: Path, model: str, method: str) -> None:
    overrides = (f"model={model}", f"method={method}", *TOY_MODELS[model], "tracking.mode=disabled")
    metrics = read_json(run_here(tmp_path, "run", *overrides, "analysis.estimate_only=true") / "metrics.json")
    assert {key.split("/")[1] for key in metrics if key.startswith("estimate/")} == set(STAGES)


def test_a_long_stage_is_told_of_when_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is found finished or not; a short one never is."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(estimate, "LEAST_OPERATIONS", 0)
    run_here(tmp_path, "short", *QUICK, "seed=1")
    assert not [line for line in caplog.messages if "operations" in line]
    monkeypatch.setattr(estimate, "TOLD_FROM", 0.0)
    run_here(tmp_path, "long", *QUICK)
    told = [line for line in caplog.messages if "operations" in line]
    assert [line.split(":")[0] for line in told] == ["score", "statistics", "basis", "edges", "ablation"]
    assert ": about " in told[2]
    assert ": at most " in told[4]
    caplog.clear()
    run_here(tmp_path, "again", *QUICK)
    assert not [line for line in caplog.messages if "operations" in line]


def test_expected_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "rates_of", lambda device, threads: {"float64": 1e9, "float32": 2e9})
    cost = Cost({"float64": 10**9, "float32": 10**9})
    assert estimate.seconds_of(cost, torch.device("cpu")) == pytest.approx(1.5 / estimate.SHARE_OF_RATE)


def test_sizes() -> None:
    assert [estimate.size(n) for n in (0, 999, 1.5e6, 2e15, 3e18)] == ["0 B", "999 B", "1.5 MB", "2 PB", "3e+03 PB"]


def test_the_configuration_has_it_off() -> None:
    assert config_of(*QUICK).analysis.estimate_only is False


@pytest.mark.parametrize("decoder", DECODERS[:3], ids=lambda decoder: decoder.name)
def test_a_pass_takes_two_operations_for_each_parameter(decoder) -> None:
    shapes = decoder.shapes(positions=8)
    per_token = (shapes.forward() + shapes.to_output) / 8
    # A residual stream is carried by a product with the identity, which has no parameters.
    carried = len(shapes.sections) * 2 * (decoder.d + 1) ** 2
    assert per_token - carried == pytest.approx(2 * PARAMETERS[decoder.name], rel=0.03)


def test_the_benchmark_of_costs(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark(["costs", "--quick", "--parts", "measured"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[2] for row in rows[2:5]] == ["statistics", "basis", "edges"]
    assert len(rows) == 2 + 3 * 3
