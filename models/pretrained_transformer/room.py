"""A pretrained transformer: by its name on the hub, from a folder, or from an earlier run."""

from __future__ import annotations

from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.checked_tensors import read_checked, write_checked
from models.content_hashes import file_hash, stage_key
from models.errors import UserError
from models.pretrained_transformer.hub import ModelNotFound, is_model, model_folder, revision_of
from models.pretrained_transformer.schema import Schema
from models.randomized import gaussian
from models.room import Progress, Trained
from models.transformer.architecture import Architecture
from models.transformer.bridge import UnsupportedFeature, load_pretrained, quiet_libraries
from models.transformer.configuration import ConfigurationError, context_length
from models.transformer.gguf_file import PACKAGE, check_gguf, described, is_gguf
from models.transformer.model import LanguageModel
from models.transformer.room import CODE, LanguageModelRoom, library_versions
from models.transformer.text import Cut, TextData
from models.transformer.texts import text_data
from models.transformer.vocabulary import TextError, read_tokenizer, token_texts
from models.weights import CheckpointError, ModelFile


class PretrainedTransformer(LanguageModelRoom[Schema]):
    """`model=pretrained_transformer`."""

    seeded = False

    @cached_property
    def source(self) -> Path:
        """The model's folder, downloaded if it has to be, or its GGUF file; raises UserError."""
        name = Path(self.model.name).expanduser()
        try:
            if is_gguf(name):
                check_gguf(name)
                return name
            return model_folder(self.model.name, self.model.trust_remote_code)
        except (ModelNotFound, CheckpointError) as error:
            raise UserError(f"model.name={error}") from error

    @cached_property
    def folder(self) -> Path:
        """What has the model's configuration and tokenizer: its folder, or what is kept of its GGUF file."""
        if not is_gguf(self.source):
            return self.source
        try:
            with quiet_libraries():
                return described(self.source, self.kept("described"))
        except CheckpointError as error:
            raise UserError(f"model.name={error}") from error

    @cached_property
    def converted_file(self) -> Path:
        """Where the converted model is kept, by the content of the model's files."""
        return self.kept()

    def kept(self, *what: str) -> Path:
        """A file of the cache that depends on the model's files, and on what else its content is."""
        versions = library_versions() | ({PACKAGE: version(PACKAGE)} if is_gguf(self.source) else {})
        depends_on = {"files": content_of(self.source), "versions": versions}
        key = stage_key(depends_on | ({"what": what} if what else {}), (CODE,))
        return self.settings.cache / "pretrained" / f"{key}.safetensors"

    @cached_property
    def text_by_tokenizer(self) -> TextData:
        """The run's text by the named model's tokenizer: all that there is to know before the model is loaded."""
        model = self.model
        cut = Cut(
            model.sequence_length,
            model.test_share,
            model.split_seed,
            model.n_train_sequences,
            model.n_test_sequences,
            model.beginning_of_sequence,
        )
        text = text_data(self.settings.data_path, ("pretrained", self.folder), cut)
        try:
            self.check_length(context_length(self.folder))
        except ConfigurationError as error:
            raise UserError(f"model.name={error}") from error
        return text

    def check_length(self, n_context: int | None) -> None:
        """Raises UserError for sequences longer than the model reads."""
        length = self.model.sequence_length
        if n_context is not None and length > n_context:
            raise UserError(f"model.sequence_length={length}: the model reads at most {n_context} tokens")

    @cached_property
    def decoder(self) -> LanguageModel:
        """From the checkpoint if there is one, else by its name. Raises UserError."""
        # First of all, as a conversion takes long, and is not to be waited for to hear that there is no such text.
        vocabulary = self.text_by_tokenizer.vocabulary
        if self.model.checkpoint is None:
            decoder = converted(
                self.converted_file, self.source, self.folder, self.model.name, self.model.trust_remote_code
            )
        else:
            decoder = self.decoder_of_checkpoint(Path(self.model.checkpoint), vocabulary)
        self.check_length(decoder.architecture.n_context)
        return decoder

    def decoder_of_checkpoint(self, path: Path, vocabulary: tuple[str, ...]) -> LanguageModel:
        """It must have the named model's vocabulary; raises UserError."""
        try:
            decoder = LanguageModel.read(path)
        except CheckpointError as error:
            raise UserError(f"model.checkpoint={error}") from error
        if decoder.vocabulary != padded(vocabulary, decoder.architecture):
            raise UserError(
                f"model.checkpoint={path}: its vocabulary is another than that of model.name={self.model.name}; "
                "expected the model that it was made from"
            )
        return decoder

    @property
    def architecture(self) -> Architecture:
        return self.decoder.architecture

    def read_text(self) -> TextData:
        """The vocabulary is as long as the model's embedding."""
        text, n_tokens = self.text_by_tokenizer, self.architecture.d_vocab
        if (largest := int(max(text.train.max(), text.test.max()))) >= n_tokens:
            raise UserError(
                f"model.name={self.model.name}: its tokenizer has token {largest}; the model reads {n_tokens} tokens"
            )
        return TextData(text.train, text.test, self.decoder.vocabulary)

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        settings = self.model.trained_as("name", "trust_remote_code")
        return settings | {"converted": self.converted_file.stem, "text": self.text.hash()}

    @property
    def weights_source(self) -> dict[str, Any] | None:
        """None where a checkpoint has the weights; of a local folder or file the name alone, wherever it lies."""
        if self.model.checkpoint is not None:
            return None
        is_local = is_gguf(self.source) or is_model(Path(self.model.name).expanduser())
        name = self.source.name if is_local else self.model.name
        return {"name": name, "revision": revision_of(self.source), "files": content_of(self.source)}

    def kept_files(self) -> tuple[str, ...]:
        files = (self.converted_file, *((self.folder,) if is_gguf(self.source) else ()))
        return tuple(file.relative_to(self.settings.cache).as_posix() for file in files)

    def load(self, path: Path) -> ModelFile:
        """The checkpoint is what the decoder was read from."""
        return self.decoder.packed()

    def initial(self) -> ModelFile:
        return self.decoder.packed()

    def untrained(self) -> ModelFile:
        """The model's own initialisation is not known: matrices of its weights' sizes."""
        return gaussian(self.decoder.packed(), self.settings.seed)

    def train(self, device: torch.device, state: Path, progress: Progress) -> Trained:
        """Nothing is trained."""
        architecture = self.architecture
        n_weights = sum(weight.numel() for weight in self.decoder.weights.values())
        size = f"{architecture.n_layers} layers of width {architecture.d_model}, {n_weights} weights"
        return Trained(self.decoder.packed(), {"reached_target": True, "summary": f"{self.model.name}: {size}"})


@lru_cache(maxsize=2)
def converted(file: Path, source: Path, folder: Path, name: str, trust_remote_code: bool) -> LanguageModel:
    """As an earlier run has converted it, or else through TransformerLens, which takes long, and kept in `file`.

    Once per process, as the file's name says what is in it. Raises UserError.

    Args:
        source: what has the weights, a folder or a GGUF file.
        folder: what has the tokenizer, a folder or one file in its place.
        name: of the model, as it was typed.
    """
    if (kept := read_checked(file)) is not None:
        return LanguageModel.unpacked(ModelFile(kept.tensors, kept.header), file)
    try:
        vocabulary = token_texts(read_tokenizer(folder))
        architecture, weights = load_pretrained(str(source), trust_remote_code=trust_remote_code)
    except (CheckpointError, UnsupportedFeature, TextError) as error:
        # By the name that was typed, not by its folder in the hub's cache.
        raise UserError(f"model.name={str(error).replace(str(source), name)}") from error
    model = LanguageModel(architecture, weights, padded(vocabulary, architecture))
    packed = model.packed()
    write_checked(file, packed.tensors, packed.header)
    return model


def padded(vocabulary: tuple[str, ...], architecture: Architecture) -> tuple[str, ...]:
    """A vocabulary as long as the embedding, which often is longer for speed.

    Tokens beyond it, which a library may add to a tokenizer, are left out: no text has one (`read_text`).
    """
    unused = (f"<{token}>" for token in range(len(vocabulary), architecture.d_vocab))
    return (*vocabulary[: architecture.d_vocab], *unused)


@lru_cache(maxsize=8)
def content_of(source: Path) -> dict[str, str]:
    """Hashes of the folder's files by name, or of the one file; they may be large, and are read once per process."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return {path.name: file_hash(path) for path in files if path.is_file()}
