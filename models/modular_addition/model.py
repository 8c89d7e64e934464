"""Modular addition as the pipeline sees it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from libcore.ablation import EvaluationData
from models.analysed import AnalysedModel
from models.modular_addition.data import Examples, split_pairs
from models.modular_addition.fourier import fourier_labels
from models.modular_addition.transformer import Architecture, Weights, chain_of
from models.weights import check_shapes, read_state_dict

BUFFERS = (".mask", ".IGNORE")
"""Entries of classic TransformerLens checkpoints that are no weights."""


def load_weights(path: Path, architecture: Architecture) -> Weights:
    """Weights from a checkpoint in classic TransformerLens names; raises CheckpointError with the first mismatch."""
    return check_shapes(read_state_dict(path), architecture.weight_shapes(), BUFFERS, path)


def analysed(
    weights: Weights, architecture: Architecture, train_fraction: float, split_seed: int, device: torch.device
) -> AnalysedModel:
    """The trained transformer with its splits; the score is accuracy over the whole vocabulary."""
    train, test = split_pairs(architecture.modulus, train_fraction, split_seed)
    return AnalysedModel(
        chain=lambda dtype: chain_of(weights, dtype, device),
        train=evaluation_data(train.to(device)),
        test=evaluation_data(test.to(device)),
        label_features=partial(fourier_labels, modulus=architecture.modulus, device=device),
    )


def evaluation_data(examples: Examples) -> EvaluationData:
    """Accuracy: whether the largest logit at "=" is the label's."""

    def correct(outputs: Tensor, start: int, stop: int) -> float:
        return float((outputs[:, -1].argmax(-1) == examples.labels[start:stop]).sum())

    return EvaluationData(examples.tokens, correct)
