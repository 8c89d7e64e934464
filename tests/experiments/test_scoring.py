"""The model's own score: asked for, bounded, and found again."""

from __future__ import annotations

import pytest
from running import TOY, TRAIN_EXAMPLES, config_of, read_json, reused, run_here

from experiments.config.model_titles import model_title
from models.errors import UserError

SCORED = (*TOY, "analysis.stages=[score]", "tracking.mode=disabled")


def score(run, split: str) -> float:
    return read_json(run / "metrics.json")[f"score/{split}"]


def test_scoring_alone_computes_nothing_else(tmp_path):
    run = run_here(tmp_path, "scored", *SCORED)
    assert set(read_json(run / "timings.json")) == {"model", "score"}
    assert not (run / "graph.safetensors").exists()


def test_nothing_is_scored_where_nobody_asks(tmp_path):
    run = run_here(tmp_path, "fitted", *TOY, "analysis.stages=[basis]", "tracking.mode=disabled")
    assert not [key for key in read_json(run / "metrics.json") if key.startswith("score/")]


def test_a_later_run_finds_the_score(tmp_path):
    first = run_here(tmp_path, "first", *SCORED)
    second = run_here(tmp_path, "second", *TOY, "method=pca", "analysis.stages=[score,basis]", "tracking.mode=disabled")
    assert not reused(first)["score"]
    assert reused(second)["score"]
    assert score(first, "test") == score(second, "test")


def test_the_examples_are_bounded(tmp_path):
    few = run_here(tmp_path, "few", *SCORED, "model.training.max_steps=5", "analysis.n_score_examples=3")
    assert score(few, "train") * 3 == pytest.approx(round(score(few, "train") * 3))
    whole = run_here(tmp_path, "whole", *SCORED, "model.training.max_steps=5")
    assert not reused(whole)["score"]
    assert score(whole, "train") * TRAIN_EXAMPLES == pytest.approx(round(score(whole, "train") * TRAIN_EXAMPLES))


@pytest.mark.parametrize("override", ["analysis.n_score_examples=0", "threads=0", "objective=''"])
def test_what_makes_no_sense_is_refused(override):
    with pytest.raises(UserError):
        config_of(override)


@pytest.mark.parametrize(
    ("model", "title"),
    [
        ({"kind": "modular_addition"}, "modular_addition"),
        ({"kind": "cifar10_mlp", "dataset": "cifar10"}, "cifar10_mlp"),
        ({"kind": "cifar10_mlp", "dataset": "digits"}, "digits_mlp"),
        ({"kind": "cifar10_cnn", "dataset": "digits"}, "digits_cnn"),
        ({"kind": "own", "dataset": "mine"}, "own"),
        ({"kind": "cifar10_mlp"}, "cifar10_mlp"),
    ],
)
def test_models_are_called_by_their_data_set(model, title):
    assert model_title(model) == title
