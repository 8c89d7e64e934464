"""What Weights & Biases is told is what the run's own files say, from the first second to the outcome."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import time

import pytest
import wandb
import yaml
from offline_run import OfflineRun, UnfinishedFileError, read_offline_run, replay
from running import (
    NODE_LAYERS,
    QUICK,
    REPOSITORY,
    TOY,
    clean_environment,
    command,
    config_of,
    files_below,
    full_run,
    quick_run,
    read_json,
    run_here,
)

from experiments.config.composition import config_of as validated_config_of
from experiments.pipeline import run_pipeline as pipeline
from experiments.pipeline.environment import git_commit
from experiments.pipeline.metrics import aliases
from experiments.pipeline.tracking import Tracker, check_tracking, tracked
from experiments.pipeline.tracking_environment import mode_of
from models.errors import UserError
from models.training_state import TrainingEvaluation

FIGURES = (
    "importance_spectrum",
    "node_ablation",
    "edge_ablation",
    "interaction_graph",
    "communities",
    "graph",
    "features",
)
OFFLINE = (*QUICK[:-1], "tracking.mode=offline")


def read_only_run(directory) -> OfflineRun:
    (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    return read_offline_run(path)


class TestOffline:
    @pytest.fixture
    def full(self, tmp_path_factory):
        return full_run(tmp_path_factory.getbasetemp())

    @pytest.fixture
    def logged(self, full) -> OfflineRun:
        return read_only_run(full)

    def test_the_summary_is_metrics_json_and_aliases(self, full, logged):
        metrics = read_json(full / "metrics.json")
        assert logged.summary == metrics | aliases(metrics)
        assert logged.summary["edges_needed_total"] == metrics["edges/needed_0.001/total"]
        assert logged.summary["test_score"] == metrics["score/test"]

    def test_the_configuration_is_config_yaml_beside_the_environment(self, full, logged):
        environment = logged.config.pop("environment")
        assert logged.config == yaml.safe_load((full / "config.yaml").read_text())
        assert {"git_commit", "versions", "python", "device", "cores", "threads", "processes"} == environment.keys()

    def test_name_project_group_tags_and_type(self, logged):
        run = logged.run
        assert (run.display_name, run.project, run.run_group, run.job_type) == (
            "modular_addition-lib-seed0",
            "local-interaction-basis",
            "together",
            "analysis",
        )
        assert sorted(run.tags) == ["lib", "modular_addition", "toy"]

    def test_commit_and_hardware(self, logged):
        if (commit := git_commit(REPOSITORY)) is not None:
            assert logged.run.git.commit == commit.partition("+")[0]
        assert any(environment.cpu_count for environment in logged.environment)

    def test_the_run_has_ended_well(self, logged):
        assert logged.exit_code == 0

    def test_training_is_a_curve_with_steps(self, logged):
        rows = [row for row in logged.history if "training/step" in row]
        assert [row["training/step"] for row in rows] == [50, 60]
        for name in ("training/loss", "training/score", "training/learning_rate"):
            assert logged.axes[name] == "training/step"
            assert all(math.isfinite(row[name]) for row in rows)

    def test_every_stage_tells_its_metrics_time_and_memory_when_it_ends(self, full, logged):
        stages = [key for row in logged.history for key in row if key.startswith("time/")]
        assert stages == [f"time/{stage}" for stage in read_json(full / "timings.json")]
        metrics = read_json(full / "metrics.json")
        told = {key: value for row in logged.history for key, value in row.items() if key in metrics}
        assert told == {key: value for key, value in metrics.items() if not key.startswith("graph/")}

    def test_ablations_are_charts_against_what_was_kept(self, full, logged):
        ablations = read_json(full / "ablations.json")
        for kind in ("node_ablation", "edge_ablation"):
            rows = [row for row in logged.history if f"{kind}/kept" in row]
            assert [row[f"{kind}/kept"] for row in rows] == sorted({row[f"{kind}/kept"] for row in rows})
            found = {
                layer: {str(row[f"{kind}/kept"]): row[f"{kind}/{layer}"] for row in rows if f"{kind}/{layer}" in row}
                for layer in NODE_LAYERS[:-1]
            }
            assert found == ablations[kind]
            assert all(logged.axes[f"{kind}/{layer}"] == f"{kind}/kept" for layer in NODE_LAYERS[:-1])

    def test_figures_are_images_and_the_graph_s_page_is_a_page(self, full, logged):
        (row,) = [row for row in logged.history if "figures/graph" in row]
        (folder,) = full.glob("wandb/offline-run-*/files")
        for name in FIGURES:
            kind, suffix = ("html-file", "html") if name in ("graph", "features") else ("image-file", "png")
            assert row[f"figures/{name}"]["_type"] == kind
            kept = folder / row[f"figures/{name}"]["path"]
            assert kept.read_bytes() == (full / "figures" / f"{name}.{suffix}").read_bytes()


def trained_rows(run) -> list[dict]:
    """What a run that goes on has logged of its training; W&B writes its file in pieces."""
    for path in run.glob("wandb/offline-run-*/run-*.wandb"):
        with contextlib.suppress(UnfinishedFileError):
            if (logged := replay(path.read_bytes())) is not None:
                return [row for row in logged.history if "training/step" in row]
    return []


class TestOutcomes:
    def test_a_run_that_fails_has_failed(self, tmp_path, monkeypatch):
        def fail(*_):
            raise RuntimeError("no luck")

        monkeypatch.setattr(pipeline, "analyse", fail)
        with pytest.raises(RuntimeError, match="no luck"):
            run_here(tmp_path, "failed", *OFFLINE)
        logged = read_only_run(tmp_path / "runs" / "failed")
        assert logged.exit_code == 1
        assert logged.summary["time/model"] > 0

    def test_a_run_that_is_terminated_has_not_ended_well(self, tmp_path):
        run = tmp_path / "run"
        endless = ("model.training.max_steps=100000000", "model.training.patience=100000000")
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *TOY, *endless, f"hydra.run.dir={run}"],
            cwd=tmp_path,
            env=clean_environment() | {"WANDB_MODE": "offline"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not trained_rows(run) and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert read_json(run / "status.json")["status"] == "interrupted"
        logged = read_only_run(run)
        assert logged.exit_code == 130
        assert [row for row in logged.history if "training/step" in row]


class TestOneRun:
    """The tracker by itself."""

    def opened(self, directory, *overrides: str):
        return tracked(validated_config_of(overrides), directory, lambda: {"cores": 2}, notes="by hand")

    def test_notes_and_no_group(self, tmp_path):
        with self.opened(tmp_path):
            pass
        logged = read_only_run(tmp_path)
        assert (logged.run.notes, logged.run.run_group, logged.summary) == ("by hand", "", {})

    def test_what_the_configuration_says_comes_first(self, tmp_path):
        with self.opened(tmp_path, "tracking.name=mine", "tracking.notes=seen", "tracking.project=toys"):
            pass
        run = read_only_run(tmp_path).run
        assert (run.display_name, run.notes, run.project) == ("mine", "seen", "toys")

    def test_what_the_environment_says_is_taken(self, tmp_path, monkeypatch):
        asked = {"PROJECT": "elsewhere", "NAME": "mine", "RUN_GROUP": "ours", "NOTES": "seen", "JOB_TYPE": "nightly"}
        for name, value in (asked | {"TAGS": "one,two"}).items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        with self.opened(tmp_path, "tracking.tags=[two,three]"):
            pass
        run = read_only_run(tmp_path).run
        assert list(run.tags) == ["modular_addition", "lib", "two", "three", "one"]
        assert [run.project, run.display_name, run.run_group, run.notes, run.job_type] == list(asked.values())

    def test_an_evaluation_is_logged_once(self, tmp_path):
        with self.opened(tmp_path) as tracker:
            for step in (1, 2, 2, 1, 3):
                tracker.training(TrainingEvaluation(step, 0.5, 0.25, 1e-3))
        assert [row["training/step"] for row in read_only_run(tmp_path).history] == [1, 2, 3]

    def test_a_number_that_json_has_no_word_for(self, tmp_path):
        """`metrics.json` says null; W&B may leave it out or say NaN, as long as the run is logged."""
        with self.opened(tmp_path) as tracker:
            tracker.results({"score/test": 0.5, "edges/hoyer/output": math.nan}, {}, [])
        assert read_only_run(tmp_path).summary["score/test"] == 0.5

    def test_artifacts(self, tmp_path):
        (tmp_path / "graph.safetensors").write_bytes(b"graph")
        with self.opened(tmp_path, "tracking.artifacts=true") as tracker:
            tracker.results({}, {}, [tmp_path / "graph.safetensors"])
        assert read_only_run(tmp_path).artifacts == {"graph": ["graph.safetensors"]}

    def test_disabled_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("a tracker was started"))
        with self.opened(tmp_path, "tracking.mode=disabled") as tracker:
            tracker.training(TrainingEvaluation(1, 0.5, 0.25, 1e-3))
            tracker.results({"score/test": 0.5}, {}, [])
        assert files_below(tmp_path) == set()


def test_artifacts_are_the_graph_and_the_weights(tmp_path):
    run = run_here(tmp_path, "kept", *OFFLINE, "tracking.artifacts=true")
    assert read_only_run(run).artifacts == {"graph": ["graph.safetensors"], "model": ["model.safetensors"]}


class TestTroubleWithTheTracker:
    @pytest.mark.parametrize("where", ["init", "Image"])
    def test_the_run_s_files_are_complete(self, tmp_path_factory, monkeypatch, caplog, where):
        def fail(*_, **__):
            raise OSError("no luck today")

        monkeypatch.setattr(wandb, where, fail)
        quick = quick_run(tmp_path_factory.getbasetemp())
        stages = ["analysis.stages=[score,basis,edges,ablation,figures]"] if where == "Image" else []
        run = run_here(quick.parents[1], f"untracked_{where}", *OFFLINE, *stages)
        assert files_below(quick) <= files_below(run)
        (warning,) = [record for record in caplog.records if record.name == "experiments.pipeline.tracking"][:1]
        assert warning.levelname == "WARNING"
        assert "no luck today" in warning.getMessage()

    def test_a_tracker_that_has_failed_is_left_alone(self, caplog):
        class Broken:
            def __getattr__(self, name):
                raise RuntimeError("no luck")

        tracker = Tracker(Broken())
        tracker.stage({"time/model": 1.0})
        tracker.stage({"time/basis": 1.0})
        tracker.close(0)
        assert [record.levelname for record in caplog.records] == ["WARNING"]


class TestMode:
    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            (None, "offline"),
            ("", "offline"),
            ("online", "online"),
            ("run", "online"),
            ("dryrun", "offline"),
            ("disabled", "disabled"),
        ],
    )
    def test_null_follows_the_environment(self, monkeypatch, environment, expected):
        monkeypatch.delenv("WANDB_MODE", raising=False)
        if environment is not None:
            monkeypatch.setenv("WANDB_MODE", environment)
        assert mode_of(config_of().tracking) == expected

    def test_the_configuration_comes_first(self, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "online")
        assert mode_of(config_of("tracking.mode=disabled").tracking) == "disabled"

    def test_a_mode_that_there_is_not(self, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "onlin")
        with pytest.raises(UserError, match="WANDB_MODE=onlin: expected online, offline or disabled"):
            mode_of(config_of().tracking)


@pytest.mark.parametrize(
    "override",
    [
        "tracking.project=a/b",
        "tracking.project=''",
        f"tracking.project={'x' * 129}",
        f"tracking.tags=[{'x' * 65}]",
        "tracking.tags=['']",
        f"tracking.group={'x' * 129}",
        f"tracking.name={'x' * 129}",
    ],
)
def test_names_that_the_service_would_refuse_are_refused_before(override):
    with pytest.raises(UserError, match=r"^tracking"):
        config_of(override)


@pytest.mark.parametrize(("variable", "value"), [("WANDB_PROJECT", "a/b"), ("WANDB_NAME", "x" * 129)])
def test_so_are_the_environment_s(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"^{variable}={value}: "):
        check_tracking(config_of().tracking)
    check_tracking(config_of("tracking.mode=disabled").tracking)
    check_tracking(config_of("tracking.project=mine", "tracking.name=mine").tracking)


def test_an_agent_of_a_sweep_leaves_the_configuration_as_it_is(tmp_path):
    parameters = tmp_path / "parameters.yaml"
    written = {"method": "pca", "analysis.integration": "gauss_legendre"}
    parameters.write_text(yaml.safe_dump({"wandb_version": 1} | {key: {"value": v} for key, v in written.items()}))
    swept = [f"{key}={value}" for key, value in written.items()]
    overrides = [*QUICK[:-1], *swept, f"hydra.run.dir={tmp_path / 'run'}"]
    environment = {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "abcd1234", "WANDB_RUN_ID": "one"}
    ended = command(tmp_path, *overrides, WANDB_SWEEP_PARAM_PATH=str(parameters), **environment)
    assert ended.returncode == 0, ended.stderr
    logged = read_only_run(tmp_path / "run")
    logged.config.pop("environment")
    assert logged.config == yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert logged.config["method"] == {"name": "pca"}
    assert logged.run.sweep_id == "abcd1234"
