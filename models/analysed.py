"""What the pipeline knows of any model: a chain of sections, data to fit on, a score, and names for features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from libcore.ablation import EvaluationData
from libcore.basis import Basis
from libcore.chain import Chain

CONSTANT = "constant"
"""Label of the constant feature."""

LabelFeatures = Callable[[Chain, dict[str, Basis]], dict[str, list[str]]]


@dataclass(frozen=True)
class ExampleImage:
    """One input as an image, and how strongly a feature responds to it.

    Attributes:
        image: red, green, blue.
        value: the feature's activation, at its strongest position.
        caption: what the image shows, such as its class.
        box: top, left, bottom, right of the position's pixels; None where a layer has one position for the whole image.
    """

    image: UInt8[Tensor, "height width 3"]
    value: float
    caption: str
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class FeaturePicture:
    """What a feature responds to: the inputs where it is highest (first the highest) and lowest (first the lowest).

    Both are empty for the constant feature, which is equal on all inputs. `direction` is the feature itself drawn as an
    image, at layers whose coordinates are pixels.
    """

    highest: tuple[ExampleImage, ...]
    lowest: tuple[ExampleImage, ...]
    direction: UInt8[Tensor, "height width 3"] | None


PictureFeatures = Callable[[Chain, dict[str, Basis]], dict[str, list[FeaturePicture]]]


@dataclass(frozen=True)
class AnalysedModel:
    """A trained model, ready to be analysed.

    Attributes:
        chain: the model as sections in a given dtype, on the device that everything runs on.
        train: what bases and edges are fitted on (its `inputs`), and the score on it.
        test: held-out inputs for scores and ablations.
        label_features: a name for every kept feature of every node layer.
        picture_features: pictures of each node layer's first features, for models whose inputs are images.
    """

    chain: Callable[[torch.dtype], Chain]
    train: EvaluationData
    test: EvaluationData
    label_features: LabelFeatures
    picture_features: PictureFeatures | None = None

    def fit_inputs(self, n_examples: int | None) -> Tensor:
        """The first `n_examples` of the training split, all by default."""
        return self.train.inputs[:n_examples]


def accuracy(inputs: Tensor, labels: Int[Tensor, " example"]) -> EvaluationData:
    """Scored by whether the largest logit at the last position is the label's."""

    def correct(outputs: Tensor, start: int, stop: int) -> float:
        return float((outputs[:, -1].argmax(-1) == labels[start:stop]).sum())

    return EvaluationData(inputs, correct)
