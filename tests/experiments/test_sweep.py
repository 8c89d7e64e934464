"""A sweep trains each model once, keeps its runs apart, ends with a report, and goes on when a run fails."""

from __future__ import annotations

import csv
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from subprocess import CompletedProcess

import pytest
import yaml
from offline_run import read_offline_run
from running import NODE_LAYERS, QUICK, TOY, command, files_below, read_json, reused, run_here

from experiments.pipeline.metrics import aliases

RUNS = set(product(("lib", "pca"), (0, 1)))


@cache
def swept(base: Path) -> tuple[Path, CompletedProcess[str]]:
    """Two methods on two seeds with an offline tracker, by the command line."""
    (base / "swept").mkdir()
    stages = "analysis.stages=[score,basis,edges,ablation]"
    return base / "swept", command(base / "swept", "-m", *TOY, stages, "method=lib,pca", "seed=0,1")


FAIL_WITH_SEED_1 = """
import sys

import experiments.pipeline.recorded_run

carry_out = experiments.pipeline.recorded_run.run_pipeline

def sometimes_fail(config, *others):
    if config.seed == 1:
        raise RuntimeError("no luck with this seed")
    return carry_out(config, *others)

experiments.pipeline.recorded_run.run_pipeline = sometimes_fail
from experiments.run import main

try:
    main()
finally:
    print("wandb was imported:", "wandb" in sys.modules)
"""


@cache
def failing(base: Path) -> tuple[Path, CompletedProcess[str]]:
    """One method of an experiment that has two, three seeds of which the second fails, a place of our own."""
    (base / "failing").mkdir()
    place = ("hydra.sweep.dir=one/two/three/sweep", "hydra.sweep.subdir=run${hydra.job.num}")
    arguments = ("-m", "experiment=demo", "method=pca", "seed=0,1,2", *QUICK, "analysis.stages=[basis]", *place)
    return base / "failing", command(base / "failing", *arguments, program=("-c", FAIL_WITH_SEED_1))


@pytest.fixture
def sweep(tmp_path_factory) -> tuple[Path, CompletedProcess[str]]:
    folder, done = swept(tmp_path_factory.getbasetemp())
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def runs(sweep) -> dict[tuple[str, int], Path]:
    """The sweep's directories by method and seed."""
    directories = sorted(path.parent for path in sweep[0].glob("outputs/*/*/*/*/status.json"))
    configs = [yaml.safe_load((directory / "config.yaml").read_text()) for directory in directories]
    found = {
        (config["method"]["name"], config["seed"]): path for config, path in zip(configs, directories, strict=True)
    }
    assert len(found) == len(directories)
    return found


class TestSweep:
    def test_no_file_of_a_run_names_the_folder_it_was_made_in(self, sweep, runs):
        """A home's name is a person's; W&B's own folder has what its client writes."""
        for directory in runs.values():
            named = [
                path
                for path in directory.rglob("*")
                if path.is_file() and "wandb" not in path.relative_to(directory).parts
                if str(sweep[0]).encode() in path.read_bytes()
            ]
            assert named == []

    def test_every_run_has_its_own_directory_and_is_finished(self, sweep, runs):
        assert runs.keys() == RUNS
        for (method, seed), directory in runs.items():
            assert directory.parts[-5:-1] == ("outputs", "modular_addition", method, f"seed{seed}")
            status = read_json(directory / "status.json")
            assert status["status"] == "finished"
            assert status["started"] <= status["ended"]
            assert {"metrics.json", "graph.safetensors", "ablations.json", "run.log"} <= files_below(directory)
            assert f"finished: {directory.relative_to(sweep[0])}" in (directory / "run.log").read_text()

    def test_every_model_is_trained_once(self, sweep, runs):
        kept = {
            stage.name: [entry for entry in stage.iterdir() if entry.is_dir()]
            for stage in (sweep[0] / "outputs" / "cache").iterdir()
        }
        assert {stage: len(entries) for stage, entries in kept.items()} == {
            "model": 2,
            "score": 2,
            "statistics": 2,
            "basis": 4,
            "identification": 4,
            "edges": 4,
            "ablation": 4,
            "names": 4,
        }
        for seed in (0, 1):
            assert sorted(reused(runs[method, seed])["model"] for method in ("lib", "pca")) == [False, True]

    def test_a_later_run_finds_the_sweep_s_stages(self, sweep):
        later = run_here(sweep[0] / "outputs", "later", *QUICK, "method=pca", "seed=1")
        # Unless this process runs with other code than the command, which is the same checkout.
        assert set(reused(later).values()) == {True}

    def test_every_run_is_one_of_the_tracker_s_in_the_sweep_s_group(self, runs):
        logged = {}
        for run, directory in runs.items():
            (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
            logged[run] = read_offline_run(path)
        assert len({found.run.run_id for found in logged.values()}) == 4
        for (method, seed), found in logged.items():
            assert found.run.display_name == f"modular_addition-{method}-seed{seed}"
            assert set(found.run.tags) == {"modular_addition", method}
            metrics = read_json(runs[method, seed] / "metrics.json")
            assert found.summary == metrics | aliases(metrics)
        groups = {found.run.run_group for found in logged.values()}
        assert len(groups) == 1
        assert groups != {""}

    def test_the_report_is_beside_the_runs_and_its_path_is_printed_last(self, sweep):
        folder, done = sweep
        assert done.stderr == ""
        (report,) = folder.glob("outputs/reports/*/report.md")
        assert done.stdout.splitlines()[-1] == f"report: {report}"
        assert "LIB (n=2)" in done.stdout
        assert "PCA (n=2)" in done.stdout
        text = report.read_text(encoding="utf-8")
        assert "| metric | LIB (n = 2) | PCA (n = 2) |" in text
        figures = {"interaction_graph", "communities", "node_ablation", "edge_ablation", "importance_spectrum"}
        assert {path.stem for path in (report.parent / "figures").glob("*.png")} == figures
        assert all(f"(figures/{name}.png)" in text for name in figures)

    def test_the_report_s_numbers_are_mean_and_spread_of_the_runs(self, sweep, runs):
        (path,) = sweep[0].glob("outputs/reports/*/report.csv")
        rows = {row["metric"]: row for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}
        needed = [f"edges/needed_0.001/{layer}" for layer in (*NODE_LAYERS[:-1], "total")]
        assert {"score/test", "graph/modularity", *needed} <= rows.keys()
        metrics = {run: read_json(directory / "metrics.json") for run, directory in runs.items()}
        for metric, row in rows.items():
            for method in ("lib", "pca"):
                # A graph without edges that count has no modularity.
                found = [metrics[method, seed][metric] for seed in (0, 1)]
                values = [value for value in found if value is not None]
                assert row[f"{method}_n"] == str(len(values))
                assert float(row[f"{method}_mean"]) == pytest.approx(fmean(values))
                if len(values) == 2:
                    assert float(row[f"{method}_std"]) == pytest.approx(stdev(values))


class TestARunThatFails:
    @pytest.fixture
    def failed(self, tmp_path_factory) -> tuple[Path, CompletedProcess[str]]:
        return failing(tmp_path_factory.getbasetemp())

    def test_the_others_finish_and_the_exit_status_is_not_0(self, failed):
        folder, done = failed
        status = [read_json(folder / "one/two/three/sweep" / f"run{number}" / "status.json") for number in range(3)]
        assert [entry["status"] for entry in status] == ["finished", "failed", "finished"]
        assert status[1]["reason"] == "RuntimeError: no luck with this seed"
        assert done.returncode == 1

    def test_only_the_method_on_the_command_line_was_run(self, failed):
        folder, done = failed
        configs = [yaml.safe_load(path.read_text()) for path in folder.rglob("config.yaml")]
        assert sorted((config["method"]["name"], config["seed"]) for config in configs) == [("pca", 0), ("pca", 2)]
        assert "LIB" not in done.stdout

    def test_the_report_names_it(self, failed):
        folder, done = failed
        (report,) = folder.rglob("report.md")
        text = report.read_text(encoding="utf-8")
        assert "PCA (n = 2)" in text
        named = "sweep/run1: failed: RuntimeError: no luck with this seed"
        assert named in text
        assert named in done.stdout.replace("\n", "")

    def test_the_log_has_the_traceback(self, failed):
        log = (failed[0] / "one/two/three/sweep/run1/run.log").read_text()
        assert "Traceback (most recent call last)" in log
        assert "in sometimes_fail" in log

    def test_the_report_stays_with_the_sweep(self, failed):
        """Nothing is written outside of the sweep's directory and the output directory."""
        assert {name.split("/")[0] for name in files_below(failed[0])} == {"one", "outputs"}
        outside = {name for name in files_below(failed[0] / "one") if not name.startswith("two/three/sweep/")}
        assert outside == {"two", "two/three", "two/three/sweep"}


def test_a_disabled_tracker_is_not_even_imported(tmp_path_factory):
    folder, done = failing(tmp_path_factory.getbasetemp())
    assert done.stdout.splitlines()[-1] == "wandb was imported: False"
    assert list(folder.rglob("wandb")) == []
