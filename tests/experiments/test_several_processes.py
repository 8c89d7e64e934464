"""A run in several processes: one run's files, the same numbers, and an end when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from experiments import one_of_several

RUN = [
    "model=modular_addition",
    "method=neuron",  # which has no features that round-off decides about
    "model.modulus=7",
    "model.d_model=16",
    "model.n_heads=2",
    "model.d_head=8",
    "model.d_mlp=16",
    "model.training.max_steps=60",
    "analysis.stages=[score,basis,edges,ablation]",
    "tracking.mode=disabled",
]


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])} | variables


def run_in(n_processes: int, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The command as users start it."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}", "-m"]
    command = [sys.executable, "-m", *(launcher if n_processes > 1 else []), "experiments.run", *RUN, *overrides]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(TMPDIR=str(folder)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def started(rank: int, port: int, folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """One of two processes, with nobody to watch over them."""
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *RUN, *overrides],
        cwd=folder,
        env=environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TMPDIR=str(folder), **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def content(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run in one process, and the same in three."""
    base = tmp_path_factory.mktemp("several")
    for n_processes in (1, 3):
        done = run_in(n_processes, base, f"hydra.run.dir=run{n_processes}", f"output_directory=outputs{n_processes}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("ablation: at most") <= 2, "the first alone speaks"
    return base


def test_numbers_are_those_of_one_process(folder: Path) -> None:
    alone, together = (load_file(folder / name / "graph.safetensors") for name in ("run1", "run3"))
    assert set(alone) == set(together)
    for name, expected in alone.items():
        if name.startswith(("gram/", "mean/", "importance/", "edges/")):
            assert (together[name] - expected).abs().max() <= 1e-10 * max(1.0, expected.abs().max().item()), name
    alone, together = (content(folder / name / "metrics.json") for name in ("run1", "run3"))
    assert {key for key in together if "needed" in key} == {key for key in alone if "needed" in key} != set()
    assert all(together[key] == value for key, value in alone.items() if "needed" in key)


def test_one_run_is_left_and_says_how_many_computed_it(folder: Path) -> None:
    assert sorted(path.name for path in folder.glob("*run*")) == ["run1", "run3"]
    status = content(folder / "run3" / "status.json")
    assert (status["status"], status["environment"]["processes"]) == ("finished", 3)


def test_stages_are_found_again_by_any_number_of_processes(folder: Path) -> None:
    done = run_in(2, folder, "hydra.run.dir=again", "output_directory=outputs1")
    assert done.returncode == 0
    assert "edges: reused" in done.stdout
    assert "basis: reused" in done.stdout


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--multirun", "--multirun in 2 processes; expected a single run"),
        ("hydra.mode=MULTIRUN", "a sweep in 2 processes; expected a single run (hydra.mode=RUN)"),
        ("dtype=float16", "dtype"),
    ],
)
def test_what_is_refused_is_said_once(tmp_path: Path, option: str, said: str) -> None:
    done = run_in(2, tmp_path, option)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert said in lines[0]
    assert done.returncode != 0


def test_a_silent_process_that_fails_waits_for_the_first_to_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher ends all of them once one has failed."""
    waited: list[float] = []
    monkeypatch.setattr(one_of_several.time, "sleep", waited.append)
    for rank, status, expected in (("1", 2, 1), ("0", 2, 0), ("1", 0, 0)):
        monkeypatch.setenv("RANK", rank)
        waited.clear()
        with pytest.raises(SystemExit):
            one_of_several.first_speaks_first(lambda status=status: sys.exit(status))
        assert len(waited) == expected


def test_numbers_that_no_launcher_sets_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *RUN],
        cwd=tmp_path,
        env=environment(WORLD_SIZE="2", RANK="2"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "error: RANK=2, WORLD_SIZE=2: expected the numbers that torchrun sets"


def test_a_process_that_dies_ends_the_run_with_one_line(tmp_path: Path) -> None:
    port = free_port()
    # So many resamples that the run is surely at them.
    overrides = ("analysis.identify_by=[]", "analysis.resamples=200000", "hydra.run.dir=run")
    with started(0, port, tmp_path, *overrides) as first, started(1, port, tmp_path, *overrides) as other:
        deadline = time.monotonic() + 120
        while "ablation" not in (text := log_of(tmp_path)):
            assert time.monotonic() < deadline, text
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.05)
        other.send_signal(signal.SIGKILL)
        output, _ = first.communicate(timeout=60)
    assert first.returncode == 2, output
    assert "another process of the run has ended" in output.splitlines()[-1]
    assert "Traceback" not in output
    status = content(tmp_path / "run" / "status.json")
    assert status["status"] == "failed"
    assert status["reason"].startswith("another process of the run has ended")
    assert not list(tmp_path.rglob("*.tmp"))


def log_of(folder: Path) -> str:
    path = folder / "run" / "run.log"
    return path.read_text() if path.is_file() else ""
