"""Sweeps by every launcher and sweeper of the extra: they end with the same report and the right exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from running import TOY_MODELS, clean_environment, command, read_json

from experiments.config.run_directory import held
from experiments.sweeps.objective import metric_keys
from experiments.sweeps.record import SweepRecord

TOY = (
    "model=block_diagonal_mlp",
    *TOY_MODELS["block_diagonal_mlp"],
    "analysis.stages=[basis,edges,ablation]",
    "tracking.mode=disabled",
    "output_directory=outputs",
)
SWEEP = ("-m", *TOY, "method=lib,pca", "seed=0,1")


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
    assert [job.status for job in record_below(tmp_path).jobs()] == ["finished"] * 4
    assert "report:" in ended.stdout
    assert not list(tmp_path.glob("outputs/reports/*/.slot*"))


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_failed_job_fails_the_command(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    (tmp_path / "broken.py").write_text(
        "from libcore.methods.pca import fit_pca\n\n"
        "def fit(chain, inputs, statistics, settings, *, breaks: bool = False):\n"
        "    if breaks:\n        raise RuntimeError('as it was asked to')\n"
        "    return fit_pca(chain, inputs, statistics, settings)\n"
    )
    added = ("+method.breaks=true,false", "method=pca", "method.name=own", "+method.function=broken:fit")
    ended = command(tmp_path, "-m", *TOY, *added, f"hydra/launcher={launcher}", PYTHONPATH=python_path(tmp_path))
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
    kill_job(tmp_path, "seed=1")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    ended = record_below(tmp_path).ended()
    (killed,) = [job for job in ended if job.status != "finished"]
    assert f"{killed.directory}: its process ended without a word" in output
    assert f"lib-run --resume {record_below(tmp_path).folder}" in output

    starts = {job.directory: started(job.directory) for job in ended if job.status == "finished"}
    again = command(tmp_path, "--resume", "outputs", "hydra/launcher=basic")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before: ") == 3
    assert {directory: started(directory) for directory in starts} == starts
    assert report_below(tmp_path) == serial
    assert all(job.status == "finished" for job in record_below(tmp_path).jobs())
    # Hydra's directories for the jobs that were skipped are gone again.
    runs = {path.parent for path in tmp_path.glob("outputs/block_diagonal_mlp/**/run.log")}
    assert len(runs) == 5


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

    def test_the_direction_follows_the_metric(self, tmp_path):
        arguments = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1")
        ended = command(tmp_path, "-m", *TOY, *arguments, "method=choice(lib,pca)", "objective=graph/modularity")
        assert ended.returncode == 0, ended.stderr
        assert record_below(tmp_path).content()["direction"] == "maximize"

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


@pytest.mark.parametrize("overrides", [(), ("analysis.stages=[score,basis]",), ("analysis.stages=[basis,edges]",)])
def test_an_objective_can_be_any_metric_that_the_run_will_have(tmp_path, overrides):
    from running import config_of, run_here

    from experiments.config.scores import with_tolerances
    from models.room import room_of

    arguments = (*TOY[:-1], *overrides)
    config = config_of(*arguments)
    room = room_of(config.model_settings)
    metrics = read_json(run_here(tmp_path, "run", *arguments) / "metrics.json")
    assert set(metric_keys(with_tolerances(config, room.score_name), room)) == metrics.keys()


class TestRefusals:
    def said(self, folder: Path, *arguments: str) -> str:
        ended = command(folder, *arguments)
        assert ended.returncode == 2, ended.stdout
        assert not list(folder.iterdir())
        (line,) = ended.stderr.splitlines()
        return line

    def test_a_metric_that_the_run_will_not_have(self, tmp_path):
        line = self.said(tmp_path, *TOY, "objective=edges/needed_0.002/total")
        assert line.startswith(
            "error: objective=edges/needed_0.002/total: the run has no such metric (did you mean edges/"
        )

    def test_a_sweeper_without_an_objective(self, tmp_path):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
        line = self.said(tmp_path, "-m", *TOY, "hydra/sweeper=optuna", "analysis.n_examples=interval(10,25)")
        assert line.startswith("error: objective=null: this sweeper needs to know what to minimise")

    @pytest.mark.parametrize("direction", ["[minimize,maximize]", "min"])
    def test_a_direction_that_one_objective_cannot_have(self, tmp_path, direction):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
        swept = ("hydra/sweeper=optuna", "seed=choice(0,1)", "objective=time/basis")
        line = self.said(tmp_path, "-m", *TOY, *swept, f"hydra.sweeper.direction={direction}")
        assert line.startswith("error: hydra.sweeper.direction=")
        assert line.endswith("expected minimize or maximize, for one objective")

    @pytest.mark.parametrize("subdirectory", ["same", "${method.name}", "x/../${method.name}"])
    def test_two_runs_with_one_directory(self, tmp_path, subdirectory):
        line = self.said(tmp_path, *SWEEP, f"hydra.sweep.subdir='{subdirectory}'")
        assert "runs 0 and 1 of the sweep would both write there" in line

    def test_runs_with_directories_of_their_own(self, tmp_path):
        ended = command(tmp_path, *SWEEP, "hydra.sweep.subdir='${method.name}${seed}'", "analysis.stages=[basis]")
        assert ended.returncode == 0, ended.stderr
        assert all((tmp_path / "outputs" / name).is_dir() for name in ("lib0", "lib1", "pca0", "pca1"))

    def test_what_is_no_sweep(self, tmp_path):
        assert "--resume nowhere: holds no sweep" in self.said(tmp_path, "--resume", "nowhere")

    def test_a_resumed_sweep_is_the_one_that_was_begun(self, tmp_path):
        command(tmp_path, *SWEEP, "analysis.stages=[basis]")
        ended = command(tmp_path, "--resume", "outputs", "seed=3")
        assert ended.returncode == 2
        assert ended.stderr.startswith("error: seed=3: a sweep is resumed as it was begun")

    def test_a_sweep_that_still_runs_is_not_resumed(self, tmp_path):
        command(tmp_path, *SWEEP, "analysis.stages=[basis]")
        record = record_below(tmp_path)
        job = record.jobs()[0]
        record.note(replace(job, status="started"))
        with held(Path(job.directory), ""):
            ended = command(tmp_path, "--resume", "outputs")
        assert ended.returncode == 2
        assert ended.stderr == f"error: --resume {record.folder}: the sweep still runs; expected one that has ended\n"


def test_a_sweep_that_was_interrupted_is_finished(tmp_path, serial):
    """The record of one whose last two jobs never ran."""
    assert command(tmp_path, *SWEEP).returncode == 0
    record = record_below(tmp_path)
    lines = (record.folder / "runs.jsonl").read_text().splitlines()
    (record.folder / "runs.jsonl").write_text(
        "\n".join(line for line in lines if json.loads(line)["number"] < 2) + "\n"
    )
    again = command(tmp_path, "--resume", str(record.folder))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before: ") == 2
    assert report_below(tmp_path) == serial
