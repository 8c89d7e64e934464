"""Modular addition: transformer, pairs and training."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.modular_addition.data import split_pairs
from models.modular_addition.model import analysed, load_weights
from models.modular_addition.schema import Schema
from models.modular_addition.training import TrainingSettings, train
from models.modular_addition.transformer import NODE_LAYERS, Architecture, chain_of, initial_weights
from models.randomized import shuffled_labels
from models.room import Progress, Room, Trained
from models.schema import ModelSettings
from models.weights import ModelFile


class ModularAddition(Room[Schema]):
    """`model=modular_addition`."""

    def __init__(self, settings: ModelSettings[Schema]) -> None:
        super().__init__(settings)
        model = settings.model
        self.architecture = Architecture(model.modulus, model.d_model, model.n_heads, model.d_head, model.d_mlp)

    @property
    def all_node_layers(self) -> tuple[str, ...]:
        return NODE_LAYERS

    def split_sizes(self) -> tuple[int, int]:
        n_pairs = self.model.modulus**2
        n_train = int(self.model.train_fraction * n_pairs)
        return n_train, n_pairs - n_train

    def load(self, path: Path) -> ModelFile:
        return ModelFile(load_weights(path, self.architecture))

    def initial(self) -> ModelFile:
        weights = initial_weights(self.architecture, self.settings.seed)
        return ModelFile({name: weight.detach() for name, weight in weights.items()})

    def train(self, device: torch.device, state: Path, progress: Progress) -> Trained:
        """From the beginning, always: it takes minutes."""
        settings = self.model.training.model_dump()
        first, second = settings.pop("betas")
        split, held_out = split_pairs(self.model.modulus, self.model.train_fraction, self.model.split_seed)
        if self.model.randomize == "labels":
            split = replace(split, labels=shuffled_labels(split.labels, self.settings.seed))

        result = train(
            self.architecture,
            TrainingSettings(**settings, betas=(first, second)),
            split,
            held_out,
            self.settings.seed,
            device,
            lambda evaluation: progress(evaluation.step, settings["max_steps"], evaluation),
        )
        history, last = result.history, result.history[-1]
        record = {
            "history": [asdict(evaluation) for evaluation in history],
            "reached_target": result.reached_target,
            "summary": f"{last.step} steps, loss {last.loss:.1e}, test accuracy {last.score:.4f}",
        }
        return Trained(ModelFile(result.weights), record)

    def chain(self, file: ModelFile, dtype: torch.dtype, device: torch.device) -> Chain:
        return chain_of(file.tensors, dtype, device).restricted_to(self.node_layers)

    def analysed(self, file: ModelFile, device: torch.device) -> AnalysedModel:
        model = analysed(file.tensors, self.architecture, self.model.train_fraction, self.model.split_seed, device)
        return replace(model, chain=self.chains(file, device))
