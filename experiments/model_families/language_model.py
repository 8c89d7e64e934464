"""What the small and the pretrained transformer have in common: all but where the decoder and its tokens come from."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from pathlib import Path

import torch

from experiments.config.schema import BYTES, RunConfig
from experiments.model_families.family import Weights
from experiments.model_families.node_layers import OPTION
from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.errors import UserError
from models.transformer.architecture import Architecture
from models.transformer.chain import chain_of
from models.transformer.model import LanguageModel, analysed
from models.transformer.node_layers import OUTPUT, resolve
from models.transformer.text import TextData

CODE = ("models.transformer",)
"""Whose change makes weights stale: all of the package, since a list of its modules that forgets one would leave old
weights in use."""
LIBRARIES = ("transformer-lens", "transformers")
"""Whose versions decide what a folder's weights, or a seed's initial ones, are."""
LARGEST_MATRIX = 2 * BYTES["GB"]
"""Of a basis of the logits, in float64."""


class LanguageModelFamily(ABC):
    """Decoders, scored by the cross-entropy of held-out text."""

    training_code: tuple[str, ...] = CODE
    seeded = True
    score_name = "cross-entropy"

    @abstractmethod
    def text(self, config: RunConfig) -> TextData:
        """The run's text in the model's tokens; raises UserError."""

    @abstractmethod
    def architecture(self, config: RunConfig) -> Architecture:
        """What the run's model is, before it is trained; raises UserError."""

    def node_layers(self, config: RunConfig) -> tuple[str, ...]:
        return resolved_node_layers(config, self.architecture(config))

    def split_sizes(self, config: RunConfig) -> tuple[int, int]:
        text = self.text(config)
        return len(text.train), len(text.test)

    def check_data(self, config: RunConfig) -> None:
        self.text(config)  # raises UserError

    def chain(self, config: RunConfig, weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
        """The decoder between the node layers that the run analyses."""
        model = LanguageModel.unpacked(weights, Path("model.safetensors"))
        node_layers = resolved_node_layers(config, model.architecture)
        return chain_of(model.architecture, model.weights, dtype, device, node_layers)

    def analysed(self, config: RunConfig, weights: Weights, device: torch.device) -> AnalysedModel:
        return analysed(
            lambda dtype: self.chain(config, weights, dtype, device),
            self.text(config),
            device,
            config.analysis.memory_bytes,
        )


def resolved_node_layers(config: RunConfig, architecture: Architecture) -> tuple[str, ...]:
    """Names of the node layers that the run analyses; raises UserError for what cannot be analysed."""
    try:
        node_layers = resolve(config.analysis.node_layers, architecture)
    except ValueError as error:
        raise UserError(f"{OPTION}{error}") from error
    size = 8 * architecture.d_vocab_out**2
    if OUTPUT in node_layers and size > LARGEST_MATRIX:
        raise UserError(
            f"{OPTION}{OUTPUT}: a basis of its {architecture.d_vocab_out} logits takes matrices of "
            f"{size / BYTES['GB']:.1f} GB; expected blocks.{architecture.n_layers - 1}.hook_resid_post as the last"
        )
    return node_layers


def library_versions() -> dict[str, str]:
    """Versions of `LIBRARIES`, told without importing them."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
