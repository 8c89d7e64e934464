"""The small transformer from its configuration: text, sizes, training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiments.config.model_configs import SmallTransformerConfig
from experiments.config.schema import RunConfig
from experiments.model_families.family import Trained, Weights
from experiments.model_families.language_model import CODE, LanguageModelFamily, library_versions
from experiments.model_families.texts import text_data
from experiments.pipeline.console import progress_bar
from models.errors import UserError
from models.transformer.architecture import Architecture
from models.transformer.bridge import convert
from models.transformer.model import LanguageModel
from models.transformer.small import Sizes, initial_model
from models.transformer.text import Cut, TextData
from models.transformer.training import Evaluation, TrainingSettings, train
from models.weights import CheckpointError

DEFAULT_VOCABULARY_SIZE = 512
"""Of byte pairs."""


def part_of(config: RunConfig) -> SmallTransformerConfig:
    """The model's own part of the configuration."""
    assert isinstance(config.model, SmallTransformerConfig)
    return config.model


def text_of(config: RunConfig) -> TextData:
    """The run's text."""
    model = part_of(config)
    tokens = ("bpe", model.vocabulary_size or DEFAULT_VOCABULARY_SIZE) if model.vocabulary == "bpe" else ("character",)
    return text_data(config.data.path, tokens, Cut(model.sequence_length, model.test_share, model.split_seed))


def sizes_of(config: RunConfig) -> Sizes:
    """Sizes of the decoder; that of the vocabulary follows from the text."""
    model = part_of(config)
    return Sizes(
        n_layers=model.n_layers,
        d_model=model.d_model,
        n_heads=model.n_heads,
        d_head=model.d_head,
        d_mlp=model.d_mlp,
        d_vocab=len(text_of(config).vocabulary),
        n_context=model.sequence_length,
    )


def settings_of(config: RunConfig) -> TrainingSettings:
    """How to train."""
    settings = part_of(config).training
    first, second = settings.betas
    return TrainingSettings(**settings.model_dump(exclude={"betas"}), betas=(first, second))


class SmallTransformerFamily(LanguageModelFamily):
    """`model=small_transformer`."""

    training_code = (*CODE, "models.training_state")

    def text(self, config: RunConfig) -> TextData:
        return text_of(config)

    def architecture(self, config: RunConfig) -> Architecture:
        return sizes_of(config).architecture()

    def depends_on(self, config: RunConfig) -> dict[str, Any]:
        # The text's hash is one of its tokens, which the vocabulary is part of.
        settings = part_of(config).model_dump(exclude={"checkpoint", "vocabulary", "vocabulary_size"})
        return settings | {"text": text_of(config).hash(), "versions": library_versions()}

    def load(self, config: RunConfig, path: Path) -> Weights:
        found, expected = LanguageModel.read(path), sizes_of(config).architecture()
        if found.vocabulary != text_of(config).vocabulary:
            raise CheckpointError(
                f"{path}: its vocabulary is another than the text's; expected the data.path and model.vocabulary "
                "that it was trained with"
            )
        for key, value in asdict(expected).items():
            if (other := asdict(found.architecture)[key]) != value:
                raise CheckpointError(f"{path}: {key} is another; expected {value}, found {other}")
        return found.packed()

    def initial(self, config: RunConfig) -> Weights:
        architecture = sizes_of(config).architecture()
        weights = {name: torch.zeros(shape) for name, shape in architecture.weight_shapes().items()}
        return LanguageModel(architecture, weights, text_of(config).vocabulary).packed()

    def train(self, config: RunConfig, device: torch.device, state: Path) -> Trained:
        """Train with a progress bar of loss and test cross-entropy."""
        settings, text = settings_of(config), text_of(config)
        model = initial_model(sizes_of(config), config.seed, device)
        with progress_bar("training", settings.steps) as advance:

            def show(step: int, last: Evaluation | None) -> None:
                advance(step, "" if last is None else f"loss {last.loss:.3f}  test {last.test_cross_entropy:.3f} nats")

            history = train(model, settings, text.train, text.test, config.seed, state, show)
        last = history[-1]
        if not all(weight.isfinite().all() for weight in model.parameters()):
            state.unlink(missing_ok=True)
            raise UserError(
                f"model.training.learning_rate={settings.learning_rate}: training diverged; expected a smaller one"
            )
        architecture, weights = convert(model)
        return Trained(
            LanguageModel(architecture, weights, text.vocabulary).packed(),
            {
                "history": [[entry.step, entry.loss, entry.test_cross_entropy] for entry in history],
                "reached_target": last.test_cross_entropy <= settings.target_cross_entropy,
                "summary": f"{last.step} steps, loss {last.loss:.3f}, "
                f"test cross-entropy {last.test_cross_entropy:.3f} nats per token",
            },
        )
