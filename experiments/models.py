"""From a model's configuration to the trained model: the one place where configuration and `models/` meet.

A model joins with a schema in `config.py`, a YAML file in `conf/model/` and an entry in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.config import ModularAdditionConfig
from experiments.console import progress_bar
from models.analysed import AnalysedModel
from models.modular_addition import model as modular_addition
from models.modular_addition.data import split_pairs
from models.modular_addition.training import TrainingSettings, TrainingState, train
from models.modular_addition.transformer import NODE_LAYERS, Architecture, Weights, initial_weights

Training = tuple[Weights, dict[str, Any]]
"""Trained weights, and what is worth recording of the training, as JSON."""


@dataclass(frozen=True)
class ModelFamily:
    """What the pipeline calls for one kind of model; `config` is its part of the configuration.

    Attributes:
        node_layers: names, first to last.
        load: weights from `config.checkpoint`; raises CheckpointError.
        train: from scratch with a seed.
        training_config: the part of the configuration that trained weights depend on.
        training_code: modules whose change makes trained weights stale.
        initial: untrained weights, for checks before training.
        analysed: the model with its data, ready for the pipeline.
    """

    node_layers: tuple[str, ...]
    load: Callable[[ModularAdditionConfig, Path], Weights]
    train: Callable[[ModularAdditionConfig, int, torch.device], Training]
    training_config: Callable[[ModularAdditionConfig], dict[str, Any]]
    training_code: tuple[str, ...]
    initial: Callable[[ModularAdditionConfig, int], Weights]
    analysed: Callable[[ModularAdditionConfig, Weights, torch.device], AnalysedModel]


def architecture_of(config: ModularAdditionConfig) -> Architecture:
    """Sizes of the modular-addition transformer."""
    return Architecture(config.modulus, config.d_model, config.n_heads, config.d_head, config.d_mlp)


def train_modular_addition(config: ModularAdditionConfig, seed: int, device: torch.device) -> Training:
    """Train with a progress bar of loss and test accuracy."""
    settings = config.training
    train_split, test_split = split_pairs(config.modulus, config.train_fraction, config.split_seed)
    with progress_bar("training", settings.max_steps) as advance:

        def show(state: TrainingState) -> None:
            advance(state.step, f"loss {state.loss:.1e}  test accuracy {state.test_accuracy:.4f}")

        result = train(
            architecture_of(config),
            TrainingSettings(**settings.model_dump(exclude={"betas"}), betas=(settings.betas[0], settings.betas[1])),
            train_split,
            test_split,
            seed,
            device,
            show,
        )
    history = [[state.step, state.loss, state.test_accuracy] for state in result.history]
    return result.weights, {
        "history": history,
        "reached_target": result.reached_target,
        "summary": f"{history[-1][0]} steps, loss {history[-1][1]:.1e}, test accuracy {history[-1][2]:.4f}",
    }


MODELS: dict[str, ModelFamily] = {
    "modular_addition": ModelFamily(
        node_layers=NODE_LAYERS,
        load=lambda config, path: modular_addition.load_weights(path, architecture_of(config)),
        train=train_modular_addition,
        training_config=lambda config: config.model_dump(exclude={"checkpoint"}),
        training_code=(
            "models.modular_addition.data",
            "models.modular_addition.training",
            "models.modular_addition.transformer",
        ),
        initial=lambda config, seed: {
            name: weight.detach() for name, weight in initial_weights(architecture_of(config), seed).items()
        },
        analysed=lambda config, weights, device: modular_addition.analysed(
            weights, architecture_of(config), config.train_fraction, config.split_seed, device
        ),
    ),
}
