"""Modular addition from its configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.config.model_configs import ModularAdditionConfig
from experiments.config.schema import RunConfig
from experiments.model_families.family import Trained, Weights
from experiments.model_families.node_layers import select_node_layers
from experiments.pipeline.console import progress_bar
from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.modular_addition import model as modular_addition
from models.modular_addition.data import split_pairs
from models.modular_addition.training import TrainingSettings, TrainingState, train
from models.modular_addition.transformer import NODE_LAYERS, Architecture, chain_of, initial_weights


def part_of(config: RunConfig) -> ModularAdditionConfig:
    """The model's own part of the configuration."""
    assert isinstance(config.model, ModularAdditionConfig)
    return config.model


def architecture_of(config: RunConfig) -> Architecture:
    """Sizes of the transformer."""
    model = part_of(config)
    return Architecture(model.modulus, model.d_model, model.n_heads, model.d_head, model.d_mlp)


class ModularAdditionFamily:
    """`model=modular_addition`."""

    training_code = (
        "models.modular_addition.data",
        "models.modular_addition.training",
        "models.modular_addition.transformer",
    )
    seeded = True
    score_name = "accuracy"

    def node_layers(self, config: RunConfig) -> tuple[str, ...]:
        return select_node_layers(config.analysis.node_layers, NODE_LAYERS)

    def split_sizes(self, config: RunConfig) -> tuple[int, int]:
        model = part_of(config)
        n_pairs = model.modulus**2
        n_train = int(model.train_fraction * n_pairs)
        return n_train, n_pairs - n_train

    def check_data(self, config: RunConfig) -> None:
        """All pairs of numbers are always there."""

    def depends_on(self, config: RunConfig) -> dict[str, Any]:
        return part_of(config).model_dump(exclude={"checkpoint"})

    def load(self, config: RunConfig, path: Path) -> Weights:
        return modular_addition.load_weights(path, architecture_of(config))

    def initial(self, config: RunConfig) -> Weights:
        return {name: weight.detach() for name, weight in initial_weights(architecture_of(config), config.seed).items()}

    def train(self, config: RunConfig, device: torch.device, state: Path) -> Trained:
        """Train with a progress bar of loss and test accuracy, from the beginning."""
        model = part_of(config)
        settings = model.training
        train_split, test_split = split_pairs(model.modulus, model.train_fraction, model.split_seed)
        with progress_bar("training", settings.max_steps) as advance:

            def show(state: TrainingState) -> None:
                advance(state.step, f"loss {state.loss:.1e}  test accuracy {state.test_accuracy:.4f}")

            result = train(
                architecture_of(config),
                TrainingSettings(
                    **settings.model_dump(exclude={"betas"}), betas=(settings.betas[0], settings.betas[1])
                ),
                train_split,
                test_split,
                config.seed,
                device,
                show,
            )
        history = [[state.step, state.loss, state.test_accuracy] for state in result.history]
        summary = f"{history[-1][0]} steps, loss {history[-1][1]:.1e}, test accuracy {history[-1][2]:.4f}"
        return Trained(
            result.weights, {"history": history, "reached_target": result.reached_target, "summary": summary}
        )

    def chain(self, config: RunConfig, weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
        return chain_of(weights, dtype, device).restricted_to(self.node_layers(config))

    def analysed(self, config: RunConfig, weights: Weights, device: torch.device) -> AnalysedModel:
        part = part_of(config)
        model = modular_addition.analysed(
            weights, architecture_of(config), part.train_fraction, part.split_seed, device
        )
        return replace(model, chain=lambda dtype: self.chain(config, weights, dtype, device))
