"""A run on a CUDA device: same features, edges and needed counts as on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from running import PRE, STORIES, TOY_MODELS, read_json, run_here, tensors_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
STAGES = "analysis.stages=[score,basis,edges,ablation]"
CHECKPOINT = Path(__file__).resolve().parents[3] / "shared/reference/modular_addition/seed0/checkpoint.pt"


def both(tmp_path: Path, *overrides: str) -> tuple[Path, Path]:
    """The same run on the CPU and on the GPU, of the same weights."""
    on_cpu = run_here(tmp_path / "cpu", "run", *overrides, "device=cpu", STAGES, "tracking.mode=disabled")
    weights = on_cpu / "model.safetensors"
    given = () if "pretrained" in overrides[0] else (f"model.checkpoint={weights}",)
    on_gpu = run_here(tmp_path / "gpu", "run", *overrides, *given, "device=cuda", STAGES, "tracking.mode=disabled")
    return on_cpu, on_gpu


def assert_same_results(on_cpu: Path, on_gpu: Path, at_the_cut: bool = False) -> None:
    """`at_the_cut`: directions of nearly no variance are round-off, and so is how many of them there are."""
    expected, found = tensors_of(on_cpu), tensors_of(on_gpu)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        tolerance = tolerance_of(name, at_the_cut)
        shared = tuple(slice(min(sizes)) for sizes in zip(tensor.shape, found[name].shape, strict=True))
        if tolerance is not None:
            assert at_the_cut or found[name].shape == tensor.shape, name
            assert (found[name][shared] - tensor[shared]).norm() <= tolerance * tensor.norm(), name
    metrics, of_gpu = (read_json(run / "metrics.json") for run in (on_cpu, on_gpu))
    for name, value in metrics.items():
        if "needed" in name:
            # Edges of directions of nearly no variance are round-off too; of PCA's some are needed.
            allowed = 0.05 * value if at_the_cut and name.startswith("edges/") else 0
            assert abs(of_gpu[name] - value) <= allowed, name


def tolerance_of(name: str, at_the_cut: bool) -> float | None:
    """What parts of a graph are compared with, relative; None for bases, whose signs are free."""
    kind, _, layer = name.partition("/")
    if kind in ("mean", "gram"):
        return 1e-12
    if kind == "importance":
        return 1e-4 if at_the_cut else 1e-8
    if kind == "edges":
        return 5e-3 if at_the_cut and layer == PRE else 1e-5
    return None


@pytest.mark.parametrize("kind", TOY_MODELS)
def test_toy_runs(tmp_path: Path, kind: str) -> None:
    if kind == "pretrained_transformer" and not STORIES.is_dir():
        pytest.skip(f"no model at {STORIES}")
    assert_same_results(*both(tmp_path, f"model={kind}", *TOY_MODELS[kind]))


@pytest.mark.parametrize("kind", ["modular_addition", "cifar10_cnn", "small_transformer"])
def test_training(tmp_path: Path, kind: str) -> None:
    run = run_here(tmp_path, "run", f"model={kind}", *TOY_MODELS[kind], "device=cuda", STAGES, "tracking.mode=disabled")
    assert "score/test" in read_json(run / "metrics.json")


@pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"no checkpoint at {CHECKPOINT}")
@pytest.mark.parametrize("method", ["lib", "pca"])
def test_the_published_checkpoint(tmp_path: Path, method: str) -> None:
    overrides = (f"model.checkpoint={CHECKPOINT}", f"method={method}", STAGES, "tracking.mode=disabled")
    runs = (run_here(tmp_path / device, "run", *overrides, f"device={device}") for device in ("cpu", "cuda"))
    assert_same_results(*runs, at_the_cut=True)
