"""Controls: untrained weights, weights shuffled within each matrix, training on shuffled labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from running import QUICK, STORIES, TOY, TOY_MODELS, assert_says, config_of, read_json, refusal, run_here
from safetensors.torch import load_file

from models.randomized import gaussian, is_bias, shuffled, shuffled_labels
from models.room import room_of
from models.weights import ModelFile

FAST = ("analysis.stages=[score,basis]", "tracking.mode=disabled")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def file_of(**tensors: torch.Tensor) -> ModelFile:
    return ModelFile(tensors, {"vocabulary": "abc"})


def example() -> ModelFile:
    generator = torch.Generator().manual_seed(0)
    return file_of(
        W_in=torch.randn(5, 7, generator=generator),
        W_Q=torch.randn(3, 4, 2, generator=generator),
        kernel=torch.randn(6, 3, 2, 2, generator=generator),
        b_in=torch.randn(7, generator=generator),
        b_Q=torch.randn(3, 2, generator=generator),
        steps=torch.arange(6).view(2, 3),
    )


def test_shuffling_keeps_what_is_in_every_matrix() -> None:
    before, after = example(), shuffled(example(), 0)
    assert after.header == before.header
    for name in ("b_in", "b_Q", "steps"):
        assert torch.equal(after.tensors[name], before.tensors[name])
    for name in ("W_in", "kernel"):
        assert not torch.equal(after.tensors[name], before.tensors[name])
        assert torch.equal(after.tensors[name].flatten().sort().values, before.tensors[name].flatten().sort().values)
    for one, other in zip(after.tensors["W_Q"], before.tensors["W_Q"], strict=True):
        assert not torch.equal(one, other)
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
    # A kernel of few entries a pair of channels would hardly be shuffled within each of them.
    assert not torch.equal(after.tensors["kernel"].flatten(2).sum(2), before.tensors["kernel"].flatten(2).sum(2))


def test_the_seed_decides() -> None:
    assert torch.equal(shuffled(example(), 1).tensors["W_in"], shuffled(example(), 1).tensors["W_in"])
    assert not torch.equal(shuffled(example(), 1).tensors["W_in"], shuffled(example(), 2).tensors["W_in"])
    labels = torch.arange(20)
    assert torch.equal(shuffled_labels(labels, 0).sort().values, labels)
    assert not torch.equal(shuffled_labels(labels, 0), shuffled_labels(labels, 1))


def test_gaussian_matrices_have_the_mean_square_of_what_they_replace() -> None:
    weight = 3.0 * torch.ones(200, 300, dtype=torch.float64)
    drawn = gaussian(file_of(weight=weight, bias=torch.ones(3)), 0).tensors
    assert drawn["weight"].square().mean().item() == pytest.approx(9.0, rel=0.02)
    assert abs(drawn["weight"].mean().item()) < 0.05
    assert torch.equal(drawn["bias"], torch.ones(3))


def test_a_run_of_shuffled_weights_trains_once_for_all(tmp_path: Path) -> None:
    trained = run_here(tmp_path, "trained", *TOY, *FAST)
    control = run_here(tmp_path, "control", *TOY, *FAST, "model.randomize=shuffled")
    before, after = weights_of(trained), weights_of(control)
    expected = shuffled(ModelFile(before), 0).tensors
    assert all(torch.equal(after[name], expected[name]) for name in before)
    scores = [read_json(run / "metrics.json")["score/train"] for run in (trained, control)]
    assert scores[1] < scores[0]
    assert sum(entry.is_dir() for entry in (tmp_path / "cache" / "model").iterdir()) == 2


@pytest.mark.parametrize("kind", ["modular_addition", "cifar10_mlp", "small_transformer"])
def test_a_run_of_untrained_weights(tmp_path: Path, kind: str) -> None:
    overrides = (f"model={kind}", *TOY_MODELS[kind], *FAST, "model.randomize=weights")
    first, again, other = (
        weights_of(run_here(tmp_path / name, "run", *overrides, f"seed={seed}"))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    matrices = [name for name in first if first[name].ndim >= 2 and not is_bias(name)]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in matrices)
    assert all(first[name].abs().max() > 0 for name in matrices)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"no model at {STORIES}")
@pytest.mark.parametrize("randomize", ["weights", "shuffled"])
def test_a_pretrained_model_without_what_it_has_learned(tmp_path: Path, randomize: str) -> None:
    overrides = ("model=pretrained_transformer", *TOY_MODELS["pretrained_transformer"], *FAST)
    plain = run_here(tmp_path / "plain", "run", *overrides)
    control = run_here(tmp_path / "control", "run", *overrides, f"model.randomize={randomize}")
    scores = [read_json(run / "metrics.json")["score/test"] for run in (plain, control)]
    assert scores[1] > scores[0] + 1.0


@pytest.mark.parametrize("kind", ["modular_addition", "cifar10_mlp"])
def test_labels_are_shuffled_in_training(tmp_path: Path, kind: str) -> None:
    overrides = (f"model={kind}", *TOY_MODELS[kind], *FAST)
    plain = run_here(tmp_path / "plain", "run", *overrides)
    control = run_here(tmp_path / "control", "run", *overrides, "model.randomize=labels")
    assert any(not torch.equal(weight, weights_of(control)[name]) for name, weight in weights_of(plain).items())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ("model=small_transformer", "model.randomize=labels"),
            ("model=small_transformer has no such control", "weights, shuffled"),
        ),
        (("model=block_diagonal_mlp", "model.randomize=weights"), ("has no such control; expected shuffled, null",)),
        (("model.randomize=label",), ("model.randomize=label", "weights", "shuffled", "labels")),
        (("model.randomize=labels", "model.checkpoint=x.pt"), ("nothing is trained with a checkpoint",)),
    ],
)
def test_controls_that_there_are_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple,
    expected: tuple,
) -> None:
    assert_says(refusal(tmp_path, monkeypatch, capsys, *overrides), *expected)


def test_controls_change_no_key_of_the_cache(tmp_path: Path) -> None:
    """A model trained before there were any is still found."""
    assert "randomize" not in room_of(config_of(*QUICK).model_settings).depends_on
    assert "randomize" not in room_of(config_of(*QUICK, "model.randomize=shuffled").model_settings).depends_on
