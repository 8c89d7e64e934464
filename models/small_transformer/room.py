"""The small transformer: text, sizes, training."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from models.divergence import refuse_diverged_weights
from models.room import Progress, Trained
from models.small_transformer.network import Sizes, initial_model
from models.small_transformer.schema import Schema
from models.small_transformer.training import TrainingSettings, train
from models.training_state import TrainingEvaluation
from models.transformer.architecture import Architecture
from models.transformer.bridge import convert
from models.transformer.model import LanguageModel
from models.transformer.room import CODE, LanguageModelRoom, library_versions
from models.transformer.text import Cut, TextData
from models.transformer.texts import Tokens, text_data
from models.weights import CheckpointError, ModelFile

DEFAULT_VOCABULARY_SIZE = 512
"""Of byte pairs."""


class SmallTransformer(LanguageModelRoom[Schema]):
    """`model=small_transformer`."""

    shared_code = (CODE, "models.training_state")

    def read_text(self) -> TextData:
        model = self.model
        tokens: Tokens = ("character",)
        if model.vocabulary == "bpe":
            tokens = ("bpe", model.vocabulary_size or DEFAULT_VOCABULARY_SIZE)
        return text_data(
            self.settings.data_path, tokens, Cut(model.sequence_length, model.test_share, model.split_seed)
        )

    @cached_property
    def sizes(self) -> Sizes:
        """That of the vocabulary follows from the text."""
        sizes = self.model.model_dump(include={"n_layers", "d_model", "n_heads", "d_head", "d_mlp"})
        return Sizes(**sizes, d_vocab=len(self.text.vocabulary), n_context=self.model.sequence_length)

    @property
    def architecture(self) -> Architecture:
        return self.sizes.architecture()

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        # The text's hash is one of its tokens, which the vocabulary is part of.
        settings = self.model.trained_as("vocabulary", "vocabulary_size")
        return settings | {"text": self.text.hash(), "versions": library_versions()}

    def load(self, path: Path) -> ModelFile:
        found = LanguageModel.read(path)
        if found.vocabulary != self.text.vocabulary:
            raise CheckpointError(
                f"{path}: its vocabulary is another than the text's; expected the data.path and model.vocabulary "
                "that it was trained with"
            )
        for key, value in asdict(self.architecture).items():
            if (other := asdict(found.architecture)[key]) != value:
                raise CheckpointError(f"{path}: {key} is another; expected {value}, found {other}")
        return found.packed()

    def initial(self) -> ModelFile:
        weights = {name: torch.zeros(shape) for name, shape in self.architecture.weight_shapes().items()}
        return LanguageModel(self.architecture, weights, self.text.vocabulary).packed()

    def untrained(self) -> ModelFile:
        network = initial_model(self.sizes, self.settings.seed, torch.device("cpu"))
        return LanguageModel(*convert(network), self.text.vocabulary).packed()

    def train(self, device: torch.device, state: Path, progress: Progress) -> Trained:
        options = self.model.training.model_dump()
        first, second = options.pop("betas")
        settings, text = TrainingSettings(**options, betas=(first, second)), self.text
        network = initial_model(self.sizes, self.settings.seed, device)

        def show(step: int, last: TrainingEvaluation | None) -> None:
            progress(step, settings.steps, last)

        history = train(network, settings, text.train, text.test, self.settings.seed, state, show)
        last = history[-1]
        refuse_diverged_weights(network.parameters(), settings.learning_rate, state)
        record = {
            "history": [asdict(evaluation) for evaluation in history],
            "reached_target": last.score <= settings.target_cross_entropy,
            "summary": f"{last.step} steps, loss {last.loss:.3f}, test cross-entropy {last.score:.3f} nats per token",
        }
        return Trained(LanguageModel(*convert(network), text.vocabulary).packed(), record)
