"""A pretrained transformer from its configuration: by its name on the hub, from a folder, or from an earlier run."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from experiments.config.model_configs import PretrainedTransformerConfig
from experiments.config.schema import RunConfig
from experiments.model_families.family import Trained, Weights
from experiments.model_families.language_model import CODE, LanguageModelFamily, library_versions
from experiments.model_families.texts import text_data
from experiments.pipeline.cache import file_hash, stage_key
from models.errors import UserError
from models.transformer.architecture import Architecture
from models.transformer.bridge import UnsupportedFeature, load_pretrained
from models.transformer.configuration import context_length
from models.transformer.hub import ModelNotFound, model_folder
from models.transformer.model import LanguageModel
from models.transformer.text import Cut, TextData
from models.transformer.vocabulary import TextError, read_tokenizer, token_texts
from models.weights import CheckpointError
from models.whole_files import written_whole


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
    text, decoder = own_text(config), model_of(config)
    n_tokens = decoder.architecture.d_vocab
    if (largest := int(max(text.train.max(), text.test.max()))) >= n_tokens:
        name = part_of(config).name
        raise UserError(f"model.name={name}: its tokenizer has token {largest}; the model reads {n_tokens} tokens")
    return TextData(text.train, text.test, decoder.vocabulary)


def own_text(config: RunConfig) -> TextData:
    """The run's text by the named model's tokenizer, all that there is to know before the model is loaded."""
    model = part_of(config)
    cut = Cut(
        model.sequence_length,
        model.test_share,
        model.split_seed,
        model.n_train_sequences,
        model.n_test_sequences,
        model.beginning_of_sequence,
    )
    folder = folder_of(model.name)
    text = text_data(config.data.path, ("pretrained", folder), cut)
    check_length(config, context_length(folder))
    return text


def check_length(config: RunConfig, n_context: int | None) -> None:
    """Raises UserError for sequences longer than the model reads."""
    length = part_of(config).sequence_length
    if n_context is not None and length > n_context:
        raise UserError(f"model.sequence_length={length}: the model reads at most {n_context} tokens")


def model_of(config: RunConfig) -> LanguageModel:
    """The decoder, once per process: from the checkpoint if there is one, else by its name. Raises UserError."""
    # First of all, as a conversion takes long, and is not to be waited for to hear that there is no such text.
    vocabulary = own_text(config).vocabulary
    model = part_of(config)
    if model.checkpoint is None:
        decoder = by_name(model.name, Path(config.output_directory))
    else:
        decoder = from_file(Path(model.checkpoint), model.name, vocabulary)
    check_length(config, decoder.architecture.n_context)
    return decoder


def from_file(path: Path, name: str, vocabulary: tuple[str, ...]) -> LanguageModel:
    """The decoder of `model.checkpoint`, which must have the named model's vocabulary; raises UserError."""
    try:
        decoder = from_checkpoint(path, file_hash(path) if path.is_file() else "")
    except CheckpointError as error:
        raise UserError(f"model.checkpoint={error}") from error
    if decoder.vocabulary != padded(vocabulary, decoder.architecture):
        raise UserError(
            f"model.checkpoint={path}: its vocabulary is another than that of model.name={name}; "
            "expected the model that it was made from"
        )
    return decoder


@lru_cache(maxsize=2)
def from_checkpoint(path: Path, content: str) -> LanguageModel:
    """A packed decoder; `content` is there so that a changed file is read again."""
    return LanguageModel.read(path)


@lru_cache(maxsize=2)
def by_name(name: str, output_directory: Path) -> LanguageModel:
    """As an earlier run has converted it, or else through TransformerLens, which takes long, and kept for later."""
    file, folder = converted_file(name, output_directory), folder_of(name)
    try:
        return LanguageModel.read(file)
    except CheckpointError:
        pass
    try:
        vocabulary = token_texts(read_tokenizer(folder))
        architecture, weights = load_pretrained(str(folder))
    except (CheckpointError, UnsupportedFeature, TextError) as error:
        # By the name that was typed, not by its folder in the hub's cache.
        raise UserError(f"model.name={str(error).replace(str(folder), name)}") from error
    model = LanguageModel(architecture, weights, padded(vocabulary, architecture))
    with written_whole(file) as path:
        save_file(model.packed(), path)
    return model


def padded(vocabulary: tuple[str, ...], architecture: Architecture) -> tuple[str, ...]:
    """A vocabulary as long as the embedding, which often is longer for speed."""
    unused = (f"<{token}>" for token in range(len(vocabulary), architecture.d_vocab))
    return (*vocabulary, *unused)


def converted_file(name: str, output_directory: Path) -> Path:
    """Where the converted model is kept, by the content of the folder's files."""
    key = stage_key({"files": content_of(folder_of(name)), "versions": library_versions()}, CODE)
    return output_directory / "cache" / "pretrained" / f"{key}.safetensors"


@lru_cache(maxsize=8)
def content_of(folder: Path) -> dict[str, str]:
    """Hashes of the folder's files by name; the files may be large, and are read once per process."""
    return {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.is_file()}


class PretrainedTransformerFamily(LanguageModelFamily):
    """`model=pretrained_transformer`."""

    seeded = False

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
        """Nothing is trained."""
        model, name = model_of(config), part_of(config).name
        architecture = model.architecture
        n_weights = sum(weight.numel() for weight in model.weights.values())
        summary = f"{name}: {architecture.n_layers} layers of width {architecture.d_model}, {n_weights} weights"
        return Trained(model.packed(), {"reached_target": True, "summary": summary})
