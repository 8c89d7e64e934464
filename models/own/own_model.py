"""A model of the user's own, as the function that `model.factory` names returns it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from libcore.ablation import EvaluationData
from libcore.chain import Chain
from models.analysed import LabelFeatures


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A trained model with its data and score: all that a run needs.

        def make(width: int, seed: int) -> OwnModel:
            net, (x, y), (x_test, y_test) = ...
            return OwnModel(net, accuracy(x, y), accuracy(x_test, y_test))

    with `kind: mine`, `factory: package.module:make` and `width: 50` in `model/mine.yaml`.

    Attributes:
        model: a module in evaluation mode, which `Chain.from_module` takes apart; a chain; or a function that gives the
            chain in a dtype, where it is made of more than tensors. On the CPU.
        train: what bases and edges are fitted on (its `inputs`, what the model takes), and the score on it: see
            `libcore.accuracy`.
        test: held-out inputs for scores and ablations.
        labels: names for every kept feature of every node layer; by default their numbers.
    """

    model: nn.Module | Chain | Callable[[torch.dtype], Chain]
    train: EvaluationData
    test: EvaluationData
    labels: LabelFeatures | None = None
