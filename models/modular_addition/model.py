"""Modular addition as the pipeline sees it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from libcore.ablation import accuracy
from models.analysed import AnalysedModel
from models.modular_addition.data import split_pairs
from models.modular_addition.fourier import fourier_labels
from models.modular_addition.maps import activation_maps
from models.modular_addition.pair_activations import PairActivations
from models.modular_addition.transformer import Architecture, Weights, chain_of
from models.weights import ModelFile, check_shapes

BUFFERS = (".mask", ".IGNORE")
"""Entries of classic TransformerLens checkpoints that are no weights."""


def load_weights(path: Path, architecture: Architecture) -> Weights:
    """Weights from a checkpoint in classic TransformerLens names; raises CheckpointError with the first mismatch."""
    return check_shapes(ModelFile.read(path).tensors, architecture.weight_shapes(), BUFFERS, path)


def analysed(
    weights: Weights, architecture: Architecture, train_fraction: float, split_seed: int, device: torch.device
) -> AnalysedModel:
    """The trained transformer with its splits; the score is accuracy over the whole vocabulary."""
    pairs = PairActivations(architecture.modulus, device)
    train, test = (split.to(device) for split in split_pairs(architecture.modulus, train_fraction, split_seed))
    return AnalysedModel(
        chain=lambda dtype: chain_of(weights, dtype, device),
        train=accuracy(train.tokens, train.labels),
        test=accuracy(test.tokens, test.labels),
        label_features=partial(fourier_labels, pairs=pairs),
        picture_features=partial(activation_maps, pairs=pairs),
    )
