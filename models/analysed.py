"""What the pipeline knows of any model: a chain of sections, data to fit on, a score, and names for features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from libcore.ablation import EvaluationData
from libcore.basis import Basis
from libcore.chain import Chain

LabelFeatures = Callable[[Chain, dict[str, Basis]], dict[str, list[str]]]


@dataclass(frozen=True)
class AnalysedModel:
    """A trained model, ready to be analysed.

    Attributes:
        chain: the model as sections in a given dtype, on the device that everything runs on.
        train: what bases and edges are fitted on (its `inputs`), and the score on it.
        test: held-out inputs for scores and ablations.
        label_features: a name for every kept feature of every node layer.
    """

    chain: Callable[[torch.dtype], Chain]
    train: EvaluationData
    test: EvaluationData
    label_features: LabelFeatures

    def fit_inputs(self, n_examples: int | None) -> Tensor:
        """The first `n_examples` of the training split, all by default."""
        return self.train.inputs[:n_examples]
