"""The MLP of known structure from its configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.config.model_configs import BlockDiagonalMlpConfig
from experiments.config.schema import RunConfig
from experiments.model_families.family import Trained, Weights
from experiments.model_families.node_layers import select_node_layers
from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.block_diagonal_mlp import model as block_diagonal_mlp
from models.block_diagonal_mlp.data import n_combinations
from models.errors import UserError


def n_examples(architecture: block_diagonal_mlp.Architecture) -> int:
    """Rows of the data, which bases are both fitted and tested on."""
    return n_combinations(architecture.n_blocks, architecture.points_per_block, architecture.correlation)


def architecture_of(config: RunConfig) -> block_diagonal_mlp.Architecture:
    """Blocks, layers and data."""
    assert isinstance(config.model, BlockDiagonalMlpConfig)
    return block_diagonal_mlp.Architecture(**config.model.model_dump(exclude={"kind", "checkpoint"}))


class BlockDiagonalMlpFamily:
    """`model=block_diagonal_mlp`."""

    training_code = ("models.block_diagonal_mlp", "libcore.methods.random")
    seeded = True
    score_name = "accuracy"

    def node_layers(self, config: RunConfig) -> tuple[str, ...]:
        return select_node_layers(config.analysis.node_layers, block_diagonal_mlp.node_layers(architecture_of(config)))

    def split_sizes(self, config: RunConfig) -> tuple[int, int]:
        n = n_examples(architecture_of(config))
        return n, n

    def check_data(self, config: RunConfig) -> None:
        """The data are all combinations of the points, which are among the weights."""

    def depends_on(self, config: RunConfig) -> dict[str, Any]:
        return config.model.model_dump(exclude={"checkpoint"})

    def load(self, config: RunConfig, path: Path) -> Weights:
        return block_diagonal_mlp.load_weights(path, architecture_of(config))

    def initial(self, config: RunConfig) -> Weights:
        try:
            return block_diagonal_mlp.initial_weights(architecture_of(config), config.seed)
        except ValueError as error:
            raise UserError(f"model.points_per_block: {error}") from error

    def train(self, config: RunConfig, device: torch.device, state: Path) -> Trained:
        """Nothing to train: the weights, drawn with the run's seed, are the ground truth."""
        return Trained(self.initial(config), {"summary": "drawn at random, as it is meant", "reached_target": True})

    def chain(self, config: RunConfig, weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
        chain = block_diagonal_mlp.chain_of(weights, architecture_of(config), dtype, device)
        return chain.restricted_to(self.node_layers(config))

    def analysed(self, config: RunConfig, weights: Weights, device: torch.device) -> AnalysedModel:
        model = block_diagonal_mlp.analysed(weights, architecture_of(config), device)
        return replace(model, chain=lambda dtype: self.chain(config, weights, dtype, device))
