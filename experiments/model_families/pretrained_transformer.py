"""A pretrained transformer from its configuration: by its name on the hub, from a folder, or from an earlier run."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from experiments.cache import file_hash, stage_key
from experiments.config import RunConfig
from experiments.errors import UserError
from experiments.model_configs import PretrainedTransformerConfig
from experiments.model_families.family import Trained, Weights
from experiments.model_families.language_model import CODE, LanguageModelFamily
from experiments.model_families.texts import text_data
from models.files import written_whole
from models.transformer.architecture import Architecture
from models.transformer.bridge import UnsupportedFeature, load_pretrained
from models.transformer.hub import ModelNotFound, model_folder
from models.transformer.model import LanguageModel
from models.transformer.text import Cut, TextData
from models.transformer.vocabulary import TextError, read_tokenizer, token_texts
from models.weights import CheckpointError


def part_of(config: RunConfig) -> PretrainedTransformerConfig:
    """The model's own part of the configuration."""
    assert isinstance(config.model, PretrainedTransformerConfig)
    return config.model


@lru_cache(maxsize=8)
def folder_of(name: str) -> Path:
    """The model's folder, downloaded if it has to be; raises UserError."""
    try:
        return model_folder(name)
    except ModelNotFound as error:
        raise UserError(f"model.name={error}") from error


def text_of(config: RunConfig) -> TextData:
    """The run's text in the model's own tokens; the vocabulary is as long as the model's embedding."""
    model, decoder = part_of(config), model_of(config)
    n_context, d_vocab = decoder.architecture.n_context, decoder.architecture.d_vocab
    if model.sequence_length > n_context:
        raise UserError(f"model.sequence_length={model.sequence_length}: the model reads at most {n_context} tokens")
    cut = Cut(
        model.sequence_length,
        model.test_share,
        model.split_seed,
        model.n_train_sequences,
        model.n_test_sequences,
        model.beginning_of_sequence,
    )
    text = text_data(config.data.path, ("pretrained", folder_of(model.name)), cut)
    if (largest := int(max(text.train.max(), text.test.max()))) >= d_vocab:
        raise UserError(f"model.name={model.name}: its tokenizer has token {largest}; the model reads {d_vocab} tokens")
    return TextData(text.train, text.test, decoder.vocabulary)


def model_of(config: RunConfig) -> LanguageModel:
    """The decoder, once per process: from the checkpoint if there is one, else by its name. Raises UserError."""
    model = part_of(config)
    if model.checkpoint is None:
        return by_name(model.name, Path(config.output_directory))
    path = Path(model.checkpoint)
    try:
        return from_checkpoint(path, file_hash(path) if path.is_file() else "")
    except CheckpointError as error:
        raise UserError(f"model.checkpoint={error}") from error


@lru_cache(maxsize=2)
def from_checkpoint(path: Path, content: str) -> LanguageModel:
    """A packed decoder; `content` is there so that a changed file is read again."""
    return LanguageModel.read(path)


@lru_cache(maxsize=2)
def by_name(name: str, output_directory: Path) -> LanguageModel:
    """As an earlier run has converted it, or else through TransformerLens, which takes long to import."""
    try:
        return LanguageModel.read(converted_file(name, output_directory))
    except CheckpointError:
        pass
    folder = folder_of(name)
    try:
        architecture, weights = load_pretrained(str(folder))
        vocabulary = token_texts(read_tokenizer(folder))
    except (CheckpointError, UnsupportedFeature, TextError) as error:
        raise UserError(f"model.name={error}") from error
    # Embeddings are often longer than the vocabulary, for speed.
    unused = (f"<{token}>" for token in range(len(vocabulary), architecture.d_vocab))
    return LanguageModel(architecture, weights, (*vocabulary, *unused))


def converted_file(name: str, output_directory: Path) -> Path:
    """Where the converted model is kept, by the content of the folder's files."""
    files = sorted(path for path in folder_of(name).iterdir() if path.is_file())
    key = stage_key({path.name: file_hash(path) for path in files}, CODE)
    return output_directory / "cache" / "pretrained" / f"{key}.safetensors"


class PretrainedTransformerFamily(LanguageModelFamily):
    """`model=pretrained_transformer`."""

    def text(self, config: RunConfig) -> TextData:
        return text_of(config)

    def architecture(self, config: RunConfig) -> Architecture:
        return model_of(config).architecture

    def depends_on(self, config: RunConfig) -> dict[str, Any]:
        model = part_of(config)
        converted = converted_file(model.name, Path(config.output_directory)).stem
        settings = model.model_dump(exclude={"checkpoint", "name"})
        return settings | {"converted": converted, "text": text_of(config).hash()}

    def load(self, config: RunConfig, path: Path) -> Weights:
        return LanguageModel.read(path).packed()

    def initial(self, config: RunConfig) -> Weights:
        return model_of(config).packed()

    def train(self, config: RunConfig, device: torch.device, state: Path) -> Trained:
        """Nothing is trained; the converted model is kept for runs on other texts."""
        model, name = model_of(config), part_of(config).name
        packed, architecture = model.packed(), model.architecture
        file = converted_file(name, Path(config.output_directory))
        if not file.is_file():
            with written_whole(file) as path:
                save_file(packed, path)
        n_weights = sum(weight.numel() for weight in model.weights.values())
        summary = f"{name}: {architecture.n_layers} layers of width {architecture.d_model}, {n_weights} weights"
        return Trained(packed, {"reached_target": True, "summary": summary})
