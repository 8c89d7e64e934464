"""A training that diverges ends at its next evaluation, and names the first step whose loss is no number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.divergence import refuse_diverged_weights
from models.errors import UserError
from models.modular_addition.data import split_pairs
from models.modular_addition.training import TrainingSettings, train
from models.modular_addition.transformer import Architecture

CPU = torch.device("cpu")


def test_modular_addition_names_the_first_step() -> None:
    settings = TrainingSettings(
        batch_size=None,
        learning_rate=1e30,
        weight_decay=0.0,
        betas=(0.9, 0.98),
        warmup_steps=1,
        max_steps=1000,
        evaluate_every=5,
        target_accuracy=1.0,
        patience=1,
    )
    evaluated: list[int] = []
    with pytest.raises(UserError, match=r"learning_rate=1e\+30: training diverged, the loss is nan from step 2 on"):
        train(
            Architecture(7, 8, 2, 4, 12), settings, *split_pairs(7, 0.8, 0), 0, CPU, lambda e: evaluated.append(e.step)
        )
    assert evaluated == []


def test_weights_that_the_last_step_leaves(tmp_path: Path) -> None:
    (state := tmp_path / "state").touch()
    refuse_diverged_weights([torch.ones(3)], 0.1, state)
    assert state.exists()
    with pytest.raises(UserError, match=r"learning_rate=0.1: training diverged, the last step leaves weights"):
        refuse_diverged_weights([torch.ones(3), torch.tensor([torch.nan])], 0.1, state)
    assert not state.exists()
