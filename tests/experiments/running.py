"""Toy runs: a modular addition that trains in a second, in this process or through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from experiments.config import RunConfig
from experiments.pipeline import run_pipeline
from experiments.validation import check_command_line

REPOSITORY = Path(__file__).resolve().parents[2]
PRE, MID, POST, OUTPUT = NODE_LAYERS = (
    "blocks.0.hook_resid_pre",
    "blocks.0.hook_resid_mid",
    "blocks.0.hook_resid_post",
    "output",
)
TRAIN_EXAMPLES, TEST_EXAMPLES = 39, 10
TOY_MODELS = {
    "modular_addition": (
        "model.modulus=7",
        "model.d_model=16",
        "model.n_heads=2",
        "model.d_head=8",
        "model.d_mlp=32",
        "model.train_fraction=0.8",
        "model.training.learning_rate=0.03",
        "model.training.warmup_steps=5",
        "model.training.max_steps=60",
        "model.training.patience=1",
    ),
}
"""Overrides that make each kind of model small."""
TOY = TOY_MODELS["modular_addition"]
QUICK = (*TOY, "analysis.stages=[basis,edges,ablation]", "tracking.mode=disabled")
"""Without figures and tracker, which take most of a toy run's time."""


def config_of(*overrides: str) -> RunConfig:
    """What the command line makes of these overrides, which ask for one run."""
    (config,) = check_command_line(list(overrides), multirun=False)
    return config


def run_here(outputs: Path, name: str, *overrides: str) -> Path:
    """Carry out one run in this process; its directory, `outputs/runs/name`."""
    directory = outputs / "runs" / name
    run_pipeline(config_of(*overrides, f"output_directory={outputs}"), directory, sweep=None)
    return directory


@cache
def full_run(base: Path) -> Path:
    """One run with everything: all stages, figures, offline tracker. Once for all tests below `base`; not to be changed."""
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
