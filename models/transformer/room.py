"""What the small and the pretrained transformer have in common: all but where the decoder and its tokens come from."""

from __future__ import annotations

import importlib.metadata
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.room import Room
from models.schema import SchemaT
from models.transformer.architecture import Architecture
from models.transformer.chain import chain_of
from models.transformer.model import LanguageModel, analysed
from models.transformer.node_layers import OUTPUT, all_node_layers, resolve
from models.transformer.text import TextData
from models.weights import ModelFile

CODE = "models.transformer"
"""Whose change makes weights stale: all of the package, since a list of its modules that forgets one would leave old
weights in use."""
LIBRARIES = ("transformer-lens", "transformers")
"""Whose versions decide what a folder's weights, or a seed's initial ones, are."""
GIGABYTE = 2**30
LARGEST_MATRIX = 2 * GIGABYTE
"""Of a basis of the logits, in float64."""


class LanguageModelRoom(Room[SchemaT]):
    """Decoders, scored by the cross-entropy of held-out text."""

    shared_code = (CODE,)
    score_name = "cross-entropy"
    lower_score_is_better = True

    @abstractmethod
    def read_text(self) -> TextData:
        """The run's text in the model's tokens; raises UserError."""

    @cached_property
    def text(self) -> TextData:
        """`read_text`, once."""
        return self.read_text()

    @property
    @abstractmethod
    def architecture(self) -> Architecture:
        """What the run's model is, before it is trained; raises UserError."""

    @property
    def all_node_layers(self) -> tuple[str, ...]:
        return all_node_layers(self.architecture)

    def select_node_layers(self, chosen: Sequence[str] | None) -> tuple[str, ...]:
        """Raises ValueError also for logits that are too many for a basis."""
        node_layers = resolve(chosen, self.architecture)
        n_logits, last_block = self.architecture.d_vocab_out, self.architecture.n_layers - 1
        size = 8 * n_logits**2
        if OUTPUT in node_layers and size > LARGEST_MATRIX:
            raise ValueError(
                f"{OUTPUT}: a basis of its {n_logits} logits takes matrices of {size / GIGABYTE:.1f} GB; "
                f"expected blocks.{last_block}.hook_resid_post as the last"
            )
        return node_layers

    def split_sizes(self) -> tuple[int, int]:
        return len(self.text.train), len(self.text.test)

    def check(self) -> None:
        assert self.text is not None  # raises UserError

    def chain(self, file: ModelFile, dtype: torch.dtype, device: torch.device) -> Chain:
        decoder = LanguageModel.unpacked(file, Path("model.safetensors"))
        return chain_of(decoder.architecture, decoder.weights, dtype, device, self.node_layers)

    def analysed(self, file: ModelFile, device: torch.device) -> AnalysedModel:
        return analysed(self.chains(file, device), self.text, device, self.settings.memory_budget)


def library_versions() -> dict[str, str]:
    """Versions of `LIBRARIES`, told without importing them."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
