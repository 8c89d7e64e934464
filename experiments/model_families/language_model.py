"""What the small and the pretrained transformer have in common: node layers and chain of a packed decoder."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.config import RunConfig
from experiments.errors import UserError
from experiments.model_families.family import Weights
from libcore.chain import Chain
from models.transformer.architecture import Architecture
from models.transformer.chain import chain_of
from models.transformer.model import LanguageModel
from models.transformer.node_layers import resolve


def resolved_node_layers(config: RunConfig, architecture: Architecture) -> tuple[str, ...]:
    """Names of the node layers that the run analyses; raises UserError for what matches none."""
    try:
        return resolve(config.analysis.node_layers, architecture)
    except ValueError as error:
        raise UserError(f"analysis.node_layers={error}") from error


def chain_of_packed(config: RunConfig, packed: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
    """The decoder between the node layers that the run analyses."""
    model = LanguageModel.unpacked(packed, Path("model.safetensors"))
    return chain_of(model.architecture, model.weights, dtype, device, resolved_node_layers(config, model.architecture))
