"""Image classifiers as the pipeline sees them: their data, score and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from libcore.ablation import accuracy
from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.vision.images import ImageDataset
from models.vision.top_images import PicturedFeatures
from models.weights import ModelFile, check_shapes

Weights = dict[str, Tensor]

STEP_COUNTS = (".num_batches_tracked",)
"""Entries of PyTorch checkpoints that no output depends on."""
VARIANCES = (".running_var",)
"""Entries whose square root is taken."""


def weights_of(model: nn.Module) -> Weights:
    """Parameters and running moments, by name."""
    return {
        name: tensor.detach().cpu() for name, tensor in model.state_dict().items() if not name.endswith(STEP_COUNTS)
    }


def load_weights(path: Path, model: nn.Module) -> Weights:
    """Weights from a checkpoint of this model; raises CheckpointError with the first mismatch."""
    expected = {name: tuple(tensor.shape) for name, tensor in weights_of(model).items()}
    return check_shapes(ModelFile.read(path).tensors, expected, STEP_COUNTS, path, VARIANCES)


def analysed(
    chain: Callable[[torch.dtype], Chain],
    dataset: ImageDataset,
    grids: dict[str, tuple[int, int]],
    device: torch.device,
    memory_budget: int,
) -> AnalysedModel:
    """A trained classifier with its splits; features are named and pictured by the training images.

    `chain` gives its node layers in any dtype, and is called more than once for the same.
    """
    train, test = dataset.train.to(device), dataset.test.to(device)
    pictured = PicturedFeatures(train.images, train.labels, dataset.class_names, grids, memory_budget)

    return AnalysedModel(
        chain=chain,
        train=accuracy(train.images, train.labels),
        test=accuracy(test.images, test.labels),
        # Which images are the most extreme can be told in float32, which is several times faster.
        label_features=lambda _, bases: pictured.label_features(chain(torch.float32), bases),
        picture_features=lambda _, bases: pictured.picture_features(chain(torch.float32), bases),
    )
