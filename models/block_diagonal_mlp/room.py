"""The MLP of known structure: drawn by seed, not trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.block_diagonal_mlp.data import n_combinations
from models.block_diagonal_mlp.model import Architecture, analysed, chain_of, initial_weights, load_weights, node_layers
from models.block_diagonal_mlp.schema import Schema
from models.errors import UserError
from models.room import Progress, Room, Trained
from models.schema import ModelSettings
from models.weights import ModelFile


class BlockDiagonalMlp(Room[Schema]):
    """`model=block_diagonal_mlp`."""

    shared_code = ("libcore.methods.random",)

    def __init__(self, settings: ModelSettings[Schema]) -> None:
        super().__init__(settings)
        self.architecture = Architecture(**settings.model.model_dump(exclude={"kind", "checkpoint", "randomize"}))

    @property
    def all_node_layers(self) -> tuple[str, ...]:
        return node_layers(self.architecture)

    def split_sizes(self) -> tuple[int, int]:
        """All combinations, which bases are both fitted and tested on."""
        n = n_combinations(self.model.n_blocks, self.model.points_per_block, self.model.correlation)
        return n, n

    def check(self) -> None:
        """Weights of some sizes can hardly be drawn."""
        if self.model.checkpoint is None:
            self.initial()

    def load(self, path: Path) -> ModelFile:
        return ModelFile(load_weights(path, self.architecture))

    def initial(self) -> ModelFile:
        try:
            return ModelFile(initial_weights(self.architecture, self.settings.seed))
        except ValueError as error:
            raise UserError(f"model.points_per_block: {error}") from error

    def train(self, device: torch.device, state: Path, progress: Progress) -> Trained:
        """The weights, drawn with the run's seed, are the ground truth."""
        return Trained(self.initial(), {"summary": "drawn at random, as it is meant", "reached_target": True})

    def chain(self, file: ModelFile, dtype: torch.dtype, device: torch.device) -> Chain:
        return chain_of(file.tensors, self.architecture, dtype, device).restricted_to(self.node_layers)

    def analysed(self, file: ModelFile, device: torch.device) -> AnalysedModel:
        return replace(analysed(file.tensors, self.architecture, device), chain=self.chains(file, device))
