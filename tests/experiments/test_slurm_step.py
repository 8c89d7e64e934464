"""Tasks that `srun` starts are processes of one run; tasks that a launcher of sweeps would start are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_several_processes import RUN, content, environment, free_port

from experiments.slurm_step import first_node, take_tasks_of_step
from models.errors import UserError


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("node7", "node7"),
        ("node[003-005,7],login", "node003"),
        ("gpu-a[12,14]", "gpu-a12"),
        ("login,node[1-2]", "login"),
        ("rack[1-2]-gpu", "rack1-gpu"),
    ],
)
def test_the_first_node(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


@pytest.mark.parametrize("nodes", ["", "[1-2]", "node[1-2"])
def test_what_is_no_list_of_nodes(nodes: str) -> None:
    with pytest.raises(UserError, match="expected names of nodes"):
        first_node(nodes)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The second of three tasks."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        # Set first, so that what the code sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    variables = {"STEP_NUM_TASKS": "3", "PROCID": "1", "LOCALID": "0", "JOB_ID": "12", "STEP_ID": "0"}
    for name, value in (variables | {"STEP_NODELIST": "node[3-4]"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return monkeypatch


def test_variables_of_a_step(step: pytest.MonkeyPatch) -> None:
    take_tasks_of_step()
    assert [os.environ[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK")] == ["3", "1", "0"]
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("node3", "21212")


@pytest.mark.parametrize("given", [{"WORLD_SIZE": "1"}, {"SLURM_STEP_NUM_TASKS": "1"}])
def test_another_launcher_s_say_and_a_single_task_s(step: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name, value in given.items():
        step.setenv(name, value)
    take_tasks_of_step()
    assert "RANK" not in os.environ


def test_what_srun_would_not_say(step: pytest.MonkeyPatch) -> None:
    step.setenv("SLURM_PROCID", "first")
    with pytest.raises(UserError, match="expected the numbers that srun sets"):
        take_tasks_of_step()


def test_two_tasks_are_one_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.run", *RUN, "analysis.stages=[score,basis]", "hydra.run.dir=run"]
    port = str(free_port())
    tasks = []
    for rank in range(2):
        variables = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        one = environment(**variables, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, TMPDIR=str(tmp_path))
        one = {name: value for name, value in one.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
        tasks.append(subprocess.Popen(command, cwd=tmp_path, env=one, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    for task in tasks:
        output, _ = task.communicate(timeout=120)
        assert task.returncode == 0, output.decode()
    assert content(tmp_path / "run" / "status.json")["environment"]["processes"] == 2


@pytest.mark.parametrize("option", ["tasks_per_node=2", "nodes=2"])
def test_several_tasks_of_a_job_of_a_sweep_are_refused(tmp_path: Path, option: str) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = [sys.executable, "-m", "experiments.run", "-m", *RUN, "seed=0,1", "hydra/launcher=submitit_slurm"]
    ended = subprocess.run(
        [*command, f"hydra.launcher.{option}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: hydra.launcher.{option}: a job of a sweep is one process; expected 1")
