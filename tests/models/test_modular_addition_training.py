"""Training: that it generalises, repeats itself, and stops where it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.modular_addition.data import all_pairs, split_pairs
from models.modular_addition.training import TrainingSettings, train
from models.modular_addition.transformer import Architecture
from models.training_state import TrainingEvaluation

CPU = torch.device("cpu")
TINY = Architecture(modulus=7, d_model=16, n_heads=2, d_head=8, d_mlp=32)
SETTINGS = TrainingSettings(
    learning_rate=3e-3,
    weight_decay=1.0,
    betas=(0.9, 0.98),
    warmup_steps=10,
    max_steps=60,
    evaluate_every=20,
    target_accuracy=1.0,
    patience=2,
)


def test_split_is_the_references() -> None:
    train_split, test_split = split_pairs(113, 0.3, 0)
    assert (len(train_split), len(test_split)) == (3830, 8939)
    everything = torch.cat([train_split.tokens, test_split.tokens])
    assert len(torch.unique(everything, dim=0)) == 113**2
    order = torch.randperm(113**2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(train_split.tokens, all_pairs(113).tokens[order[:3830]])


def test_labels_are_sums() -> None:
    pairs = all_pairs(5)
    assert pairs.tokens[7].tolist() == [1, 2, 5]
    assert torch.equal(pairs.labels, (pairs.tokens[:, 0] + pairs.tokens[:, 1]) % 5)


def test_equal_seeds_give_equal_weights() -> None:
    splits = split_pairs(7, 0.5, 0)
    one, same, other = (train(TINY, SETTINGS, *splits, seed, CPU) for seed in (0, 0, 1))
    for name, weight in one.weights.items():
        assert torch.equal(weight, same.weights[name])
    assert any(not torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())
    assert [state.step for state in one.history] == [20, 40, 60]


def test_stops_after_patience_and_says_whether_it_met_its_criterion() -> None:
    splits = split_pairs(7, 0.5, 0)
    seen: list[TrainingEvaluation] = []
    easy = replace(SETTINGS, target_accuracy=1e-9)
    stopped = train(TINY, easy, *splits, 0, CPU, seen.append)
    reached = [state.score > 0 for state in stopped.history]
    assert stopped.reached_target
    assert reached[-2:] == [True, True]
    assert seen == stopped.history
    never = train(TINY, replace(SETTINGS, max_steps=20), *splits, 0, CPU)
    assert not never.reached_target


def test_it_generalises() -> None:
    """Modulus 31: the pairs held out are learnt too, which memorising would leave near 1/31."""
    architecture = Architecture(modulus=31, d_model=48, n_heads=4, d_head=12, d_mlp=192)
    settings = replace(SETTINGS, learning_rate=5e-3, max_steps=3000, evaluate_every=50, target_accuracy=0.9, patience=1)
    result = train(architecture, settings, *split_pairs(31, 0.7, 0), 0, CPU)
    assert result.reached_target, result.history[-1]


@pytest.mark.slow
def test_the_papers_modulus_in_under_fifteen_minutes() -> None:
    """p = 113 with the default settings; as in docs/RESULTS.md."""
    architecture = Architecture(modulus=113, d_model=128, n_heads=4, d_head=32, d_mlp=512)
    settings = replace(
        SETTINGS, learning_rate=2e-3, max_steps=20000, evaluate_every=50, target_accuracy=0.9995, patience=3
    )
    result = train(architecture, settings, *split_pairs(113, 0.3, 0), 0, CPU)
    assert result.history[-1].score > 0.999
