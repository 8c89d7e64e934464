"""Toy runs of every model, small enough to take a second, in this process or through the command line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

from experiments import run as run_module
from experiments.benchmarks import sizes
from experiments.config import composition
from experiments.config.composition import validated
from experiments.config.folder import CONFIG_DIRECTORY
from experiments.config.schema import RunConfig
from experiments.config.sweep import Sweep
from experiments.pipeline import recorded_run
from experiments.pipeline.run_pipeline import run_pipeline
from experiments.reporting.report_files import write_report

REPOSITORY = Path(__file__).resolve().parents[2]
PRE, MID, POST, OUTPUT = NODE_LAYERS = (
    "blocks.0.hook_resid_pre",
    "blocks.0.hook_resid_mid",
    "blocks.0.hook_resid_post",
    "output",
)
TRAIN_EXAMPLES, TEST_EXAMPLES = 39, 10
TOLERANCES = {"0.001", "0.01", "0.05"}
STORIES = REPOSITORY.parent / "shared" / "data" / "stories260k"
TOY_MODELS = {
    "modular_addition": sizes.QUICK.modular_overrides,
    "cifar10_mlp": ("model.dataset=digits", "model.hidden_sizes=[6,5]", "model.training.epochs=1"),
    "cifar10_cnn": (
        "model.dataset=digits",
        "model.channels=[3,4]",
        "model.training.epochs=1",
        "analysis.n_examples=50",
        "analysis.n_test_examples=40",
    ),
    "block_diagonal_mlp": ("model.n_blocks=2", "model.points_per_block=5"),
    "small_transformer": (
        "model.n_layers=1",
        "model.d_model=6",
        "model.n_heads=2",
        "model.d_head=3",
        "model.d_mlp=5",
        "model.vocabulary=character",
        "model.sequence_length=8",
        "model.test_share=0.001",
        "model.training.steps=3",
        "analysis.n_examples=20",
        "analysis.n_test_examples=10",
    ),
    "pretrained_transformer": (
        f"model.name={STORIES}",
        "model.sequence_length=6",
        "model.n_train_sequences=12",
        "model.n_test_sequences=4",
        "analysis.node_layers=[blocks.3.hook_resid_mid,blocks.4.hook_resid_pre]",
        "analysis.n_examples=12",
        "analysis.n_test_examples=4",
    ),
}
"""Overrides that make each kind of model small."""
TOY = TOY_MODELS["modular_addition"]
QUICK = (*TOY, "analysis.stages=[score,basis,edges,ablation]", "tracking.mode=disabled")
"""Without figures and tracker, which take most of a toy run's time."""


def config_of(*overrides: str) -> RunConfig:
    """What the command line makes of these overrides, which ask for one run."""
    return composition.config_of(overrides)


def configs_of(*overrides: str) -> list[RunConfig]:
    """What the command line makes of these overrides, an experiment's own sweep among them."""
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        master = compose("config", overrides=list(overrides), return_hydra_config=True)
        if "MULTIRUN" not in str(master.hydra.mode):
            return [composition.parse_config(master)]
        return [validated(plain) for plain in Sweep(master, GlobalHydra.instance().config_loader())]


def run_here(outputs: Path, name: str, *overrides: str) -> Path:
    """Carry out one run in this process; its directory, `outputs/runs/name`."""
    directory = outputs / "runs" / name
    run_pipeline(config_of(*overrides, f"output_directory={outputs}"), directory, sweep=None)
    return directory


@cache
def full_run(base: Path) -> Path:
    """One run with all stages, figures and offline tracker; once for all tests below `base`, not to be changed."""
    return run_here(base / "full", "full", *TOY, "tracking.tags=[toy]", "tracking.group=together")


@cache
def quick_run(base: Path) -> Path:
    """One run without figures and tracker, its output directory `base/quick`; not to be changed."""
    return run_here(base / "quick", "quick", *QUICK)


def command(cwd: Path, *arguments: str, program: tuple[str, ...] = ("-m", "experiments.run"), **environment: str):
    """Run the command line in a process of its own and wait for it."""
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Call the command in `folder`: it must refuse its arguments before any run starts. The one line that it says."""
    monkeypatch.chdir(folder)
    leave_no_account(folder, monkeypatch)
    monkeypatch.setattr(recorded_run, "run_pipeline", lambda *_: pytest.fail("a run was started"))
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    before = files_below(folder)
    with pytest.raises(SystemExit) as ended:
        run_module.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    # The folder is the user's home too, whose cache has W&B's own log once it is asked for an account.
    assert {name for name in files_below(folder) if not name.startswith(".cache")} == before
    (line,) = err.splitlines()
    return line


def exit_status(folder: Path, *arguments: str) -> int:
    """Call the command in `folder`; how it ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["run.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_module.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def started_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[RunConfig]:
    """Call the command in `folder`; the configurations of the runs that it starts, which do nothing."""
    monkeypatch.chdir(folder)
    started: list[RunConfig] = []
    monkeypatch.setattr(recorded_run, "run_pipeline", lambda config, *_: started.append(config))
    monkeypatch.setattr("experiments.report.write_and_print", lambda directories, out: None)
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_module.main()
    assert ended.value.code == 0
    return started


def assert_says(line: str, *expected: str) -> None:
    """Every expected part is in the line."""
    missing = [part for part in expected if part not in line]
    assert not missing, f"{missing} not in {line!r}"


def leave_no_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No place is left where a W&B account could be logged in."""
    for variable in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))


def clean_environment() -> dict[str, str]:
    """This process's environment without a W&B account or settings, finding the project from any folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return kept | {"PYTHONPATH": str(REPOSITORY)}


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def files_below(folder: Path) -> set[str]:
    """Every file and folder below, as relative paths."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's graph."""
    return load_file(run / "graph.safetensors")


def reused(run: Path) -> dict[str, bool]:
    """Which of a run's stages were found finished."""
    return {stage: taken["reused"] for stage, taken in read_json(run / "timings.json").items()}


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


FEW_METRICS = {
    "score/train": 1.0,
    "score/test": 0.5,
    f"features/needed_0.001/{PRE}": 12,
    f"features/needed_0.01/{PRE}": 9,
    f"edges/hoyer/{PRE}": 0.75,
    "time/model": 3.0,
}


def few_settings(method: str, seed: int, **model: Any) -> dict[str, Any]:
    """As much of a configuration as a report needs."""
    return {
        "model": {"kind": "modular_addition", "checkpoint": None} | model,
        "method": {"name": method},
        "analysis": {"n_examples": None},
        "tracking": {"mode": "disabled", "group": None},
        "seed": seed,
        "output_directory": "outputs",
    }


def write_run(
    directory: Path,
    config: dict[str, Any],
    metrics: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
) -> Path:
    """A run's directory by hand; without more words a finished run with `FEW_METRICS`."""
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    (directory / "metrics.json").write_text(json.dumps(FEW_METRICS if metrics is None else metrics))
    (directory / "status.json").write_text(json.dumps(status or {"status": "finished"}))
    return directory


def report_of(tmp_path: Path) -> tuple[str, list[dict[str, dict[str, str]]], list[str]]:
    """Report on the runs below `tmp_path/runs`: Markdown, rows of every CSV by metric, lines about unfinished runs."""
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    tables = [
        {row["metric"]: row for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}
        for path in sorted((tmp_path / "report").glob("report*.csv"))
    ]
    return (tmp_path / "report" / "report.md").read_text(encoding="utf-8"), tables, report.unfinished
