"""Sweeps by every launcher and sweeper of the extra: they end with the same report and the right exit status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from running import (
    REPOSITORY,
    TOY_MODELS,
    assert_says,
    clean_environment,
    command,
    config_of,
    read_json,
    run_here,
    started_runs,
)

from experiments.config.folder import CONFIG_DIRECTORY
from experiments.config.run_directory import held
from experiments.config.scores import with_tolerances
from experiments.pipeline.metrics import aliases
from experiments.sweeps.objective import metric_keys
from experiments.sweeps.record import SweepRecord
from models.room import room_of

TOY = (
    "model=block_diagonal_mlp",
    *TOY_MODELS["block_diagonal_mlp"],
    "analysis.stages=[score,basis,ablation]",
    "tracking.mode=disabled",
    "output_directory=outputs",
)
SWEEP = ("-m", *TOY, "method=lib,pca")


def record_below(folder: Path) -> SweepRecord:
    (path,) = folder.glob("outputs/reports/*/sweep.json")
    return SweepRecord(path.parent)


def report_below(folder: Path) -> str:
    """The report's tables."""
    return (record_below(folder).folder / "report.csv").read_text()


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("serial")
    ended = command(folder, *SWEEP)
    assert ended.returncode == 0, ended.stderr
    return report_below(folder)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_the_report_is_that_of_the_serial_sweep(tmp_path, serial, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    ended = command(tmp_path, *SWEEP, f"hydra/launcher={launcher}")
    assert ended.returncode == 0, ended.stderr
    assert report_below(tmp_path) == serial
    assert [job.status for job in record_below(tmp_path).jobs()] == ["finished"] * 2
    assert "report:" in ended.stdout
    assert not list(tmp_path.glob("outputs/reports/*/.slot*"))


def test_a_failed_job_fails_the_command(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "broken.py").write_text(
        "from libcore.methods.pca import fit_pca\n\n"
        "def fit(chain, inputs, statistics, settings, *, breaks: bool = False):\n"
        "    if breaks:\n        raise RuntimeError('as it was asked to')\n"
        "    return fit_pca(chain, inputs, statistics, settings)\n"
    )
    added = ("+method.breaks=true,false", "method=pca", "method.name=own", "+method.function=broken:fit")
    ended = command(tmp_path, "-m", *TOY, *added, "hydra/launcher=joblib", PYTHONPATH=python_path(tmp_path))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "RuntimeError: as it was asked to" in ended.stdout
    assert [job.status for job in record_below(tmp_path).jobs()] == ["failed", "finished"]


def python_path(folder: Path) -> str:
    return os.pathsep.join([clean_environment()["PYTHONPATH"], str(folder)])


def test_a_killed_job_is_named_and_a_second_call_redoes_that_one_only(tmp_path, serial):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    arguments = [*SWEEP, "hydra/launcher=submitit_local"]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *arguments],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    kill_job(tmp_path, "method=pca")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    ended = record_below(tmp_path).ended()
    (killed,) = [job for job in ended if job.status != "finished"]
    assert f"{killed.directory}: its process ended without a word" in output
    assert f"lib-run --resume {record_below(tmp_path).folder}" in output

    starts = {job.directory: started(job.directory) for job in ended if job.status == "finished"}
    again = command(tmp_path, "--resume", "outputs", "hydra/launcher=basic")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before: ") == 1
    assert {directory: started(directory) for directory in starts} == starts
    assert report_below(tmp_path) == serial
    assert all(job.status == "finished" for job in record_below(tmp_path).jobs())
    # Hydra's directories for the jobs that were skipped are gone again.
    runs = {path.parent for path in tmp_path.glob("outputs/block_diagonal_mlp/**/run.log")}
    assert len(runs) == 3


def started(directory: str) -> str:
    return read_json(Path(directory) / "status.json")["started"]


def kill_job(folder: Path, override: str) -> None:
    """Kill the process of the first job with this override once it runs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in folder.glob("outputs/reports/*/runs.jsonl"):
            for job in SweepRecord(path.parent).jobs():
                if job.status == "started" and override in job.overrides and (pid := holder(job.directory)):
                    os.kill(pid, signal.SIGKILL)
                    return
        time.sleep(0.001)
    pytest.fail(f"no job with {override} was seen running")


def holder(directory: str) -> int | None:
    """The process that has a directory open."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and any(os.readlink(fd) == directory for fd in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return None


class TestOptuna:
    @pytest.fixture(autouse=True)
    def _is_installed(self):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

    def test_it_minimises_the_objective_and_says_the_best(self, tmp_path):
        ended = command(
            tmp_path,
            "-m",
            *TOY,
            "hydra/sweeper=optuna",
            "analysis.stages=[basis,edges,ablation]",
            "hydra.sweeper.n_trials=3",
            "hydra.sweeper.n_jobs=1",
            "hydra.sweeper.sampler.seed=0",
            "analysis.n_examples=interval(10,25)",
            "method.jacobian=choice(point,path)",
            "analysis.integration=gauss_legendre",
            "objective=edges/needed_0.001/total",
        )
        assert ended.returncode == 0, ended.stderr
        jobs = record_below(tmp_path).jobs()
        assert len(jobs) == 3
        for job in jobs:
            (drawn,) = [text.partition("=")[2] for text in job.overrides if text.startswith("analysis.n_examples=")]
            assert 10 <= int(drawn) <= 25
            assert job.objective == read_json(Path(job.directory) / "metrics.json")["edges/needed_0.001/total"]
        best = min(jobs, key=lambda job: job.objective)
        (line,) = [line for line in ended.stdout.splitlines() if line.startswith("best of 3: ")]
        assert f"edges/needed_0.001/total = {best.objective:g} with " in line
        assert line.endswith(best.directory)
        assert "output_directory" not in line

    def test_an_experiment_s_own_direction_stays_and_a_resumed_search_draws_the_same(self, tmp_path):
        experiment = tmp_path / "conf" / "experiment" / "search.yaml"
        experiment.parent.mkdir(parents=True)
        experiment.write_text(SEARCH)
        overrides = (*TOY, "experiment=search", "analysis.stages=[basis,edges]")
        assert command(tmp_path, "--config-dir", "conf", *overrides).returncode == 0
        record = record_below(tmp_path)
        assert record.content()["direction"] == "minimize"
        best = min(record.jobs(), key=lambda job: job.objective)
        (tmp_path / "elsewhere").mkdir()
        again = command(tmp_path / "elsewhere", f"--resume={record.folder}")
        assert again.returncode == 0, again.stderr
        assert again.stdout.count("finished before: ") == 3
        assert again.stdout.splitlines()[-1].endswith(best.directory)
        assert not list((tmp_path / "elsewhere").iterdir())


SEARCH = """\
# @package _global_
defaults:
  - override /hydra/sweeper: optuna
objective: graph/modularity
hydra:
  mode: MULTIRUN
  sweeper: {direction: minimize, n_trials: 3, n_jobs: 1, params: {analysis.n_examples: "interval(10, 25)"}}
"""


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("analysis.stages=[score,basis,edges,ablation]",),
        ("analysis.stages=[basis,edges]",),
        ("analysis.stages=[basis,labels]",),
        ("analysis.stages=[basis,edges,ablation]", "analysis.resamples=200"),
    ],
)
def test_an_objective_can_be_any_metric_that_the_run_will_have(tmp_path, overrides):
    arguments = (*TOY[:-1], *overrides)
    config = config_of(*arguments)
    room = room_of(config.model_settings)
    metrics = read_json(run_here(tmp_path, "run", *arguments) / "metrics.json")
    assert set(metric_keys(with_tolerances(config, room.score_name), room)) == metrics.keys()


class TestRefusals:
    def test_a_metric_that_the_run_will_not_have(self, refused):
        line = refused(*TOY, "objective=features/needed_0.002/total")
        assert_says(line, "objective=features/needed_0.002/total: the run has no such metric (did you mean ")

    def test_a_sweeper_without_an_objective(self, refused):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
        line = refused("-m", *TOY, "hydra/sweeper=optuna", "analysis.n_examples=interval(10,25)")
        assert_says(line, "objective=null: this sweeper needs to know what to minimise")

    @pytest.mark.parametrize("direction", ["[minimize,maximize]", "min"])
    def test_a_direction_that_one_objective_cannot_have(self, refused, direction):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
        swept = ("hydra/sweeper=optuna", "seed=choice(0,1)", "objective=features/kept/output")
        line = refused("-m", *TOY, *swept, f"hydra.sweeper.direction={direction}")
        assert_says(line, "error: hydra.sweeper.direction=", "expected minimize or maximize, for one objective")

    @pytest.mark.parametrize("subdirectory", ["same", "${seed}", "x/../${seed}"])
    def test_two_runs_with_one_directory(self, refused, subdirectory):
        line = refused(*SWEEP, f"hydra.sweep.subdir='{subdirectory}'")
        assert_says(line, "runs 0 and 1 of the sweep would both write there")

    def test_what_is_no_sweep(self, refused):
        assert_says(refused("--resume", "nowhere"), "--resume nowhere: holds no sweep")


def test_runs_with_directories_of_their_own(tmp_path, monkeypatch):
    assert len(started_runs(tmp_path, monkeypatch, *SWEEP, "hydra.sweep.subdir='${method.name}${seed}'")) == 2


class TestResuming:
    @pytest.fixture
    def begun(self, tmp_path) -> SweepRecord:
        """A sweep whose last job was never begun."""
        assert command(tmp_path, *SWEEP).returncode == 0
        record = record_below(tmp_path)
        lines = (record.folder / "runs.jsonl").read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["number"] == 0]
        (record.folder / "runs.jsonl").write_text("\n".join(kept) + "\n")
        return record

    def test_it_is_the_sweep_that_was_begun_and_no_other(self, begun, tmp_path, serial):
        refused = command(tmp_path, "--resume", "outputs", "seed=3")
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: seed=3: a sweep is resumed as it was begun")
        again = command(tmp_path, "--resume", str(begun.folder))
        assert again.returncode == 0, again.stderr
        assert again.stdout.count("finished before: ") == 1
        assert report_below(tmp_path) == serial

    def test_a_sweep_that_still_runs_is_not_resumed(self, tmp_path):
        command(tmp_path, *SWEEP, "analysis.stages=[basis]")
        record = record_below(tmp_path)
        job = record.jobs()[0]
        record.note(replace(job, status="started"))
        with held(Path(job.directory), ""):
            ended = command(tmp_path, "--resume", "outputs")
        assert ended.returncode == 2
        assert ended.stderr == f"error: --resume {record.folder}: the sweep still runs; expected one that has ended\n"


class TestClusters:
    """What can be said of a queue without one."""

    def test_the_launcher_s_options_are_taken(self, tmp_path):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
        options = ("partition=cpu", "cpus_per_task=8", "timeout_min=600")
        overrides = ("hydra/launcher=submitit_slurm", *(f"hydra.launcher.{option}" for option in options))
        ended = command(tmp_path, *overrides, "--cfg", "hydra", "-p", "hydra.launcher")
        assert ended.returncode == 0, ended.stderr
        launcher = yaml.safe_load(ended.stdout)
        assert {option: launcher[option.partition("=")[0]] for option in options} == {
            "partition=cpu": "cpu",
            "cpus_per_task=8": 8,
            "timeout_min=600": 600,
        }
        assert launcher["_target_"].endswith("SlurmLauncher")

    @pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a queue here")
    def test_no_queue_is_said_in_one_line(self, tmp_path):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
        ended = command(tmp_path, *SWEEP, "hydra/launcher=submitit_slurm")
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: Could not detect ")


class TestSweepOfWeightsAndBiases:
    CONTENT = yaml.safe_load((CONFIG_DIRECTORY / "wandb_sweep.yaml").read_text())

    def commands(self) -> list[list[str]]:
        """What an agent calls for every combination, of a range its lower end."""
        values = {
            key: parameter.get("values", [parameter.get("value", parameter.get("min"))])
            for key, parameter in self.CONTENT["parameters"].items()
        }
        arguments = [
            [f"{key}={value}" for key, value in zip(values, combination, strict=True)]
            for combination in product(*values.values())
        ]
        assert self.CONTENT["command"][0] == "${env}"
        assert self.CONTENT["command"][-1] == "${args_no_hyphens}"
        return [[*self.CONTENT["command"][1:-1], *of_one] for of_one in arguments]

    def test_every_command_is_one_of_the_project_s(self):
        scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
        commands = self.commands()
        assert len(commands) > 2
        for program, *overrides in commands:
            assert program in scripts
            assert config_of(*overrides).tracking.mode == "online"

    def test_its_metric_is_one_that_a_run_s_summary_has(self, tmp_path):
        run = run_here(tmp_path, "run", *TOY[:-1], "analysis.stages=[basis,edges,ablation]")
        assert self.CONTENT["metric"] == {"name": "edges_needed_total", "goal": "minimize"}
        assert self.CONTENT["metric"]["name"] in aliases(read_json(run / "metrics.json"))
