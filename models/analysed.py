"""What the pipeline knows of any model: a chain of sections, data to fit on, a score, and names for features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from libcore.ablation import EvaluationData
from libcore.basis import Basis
from libcore.chain import Chain

CONSTANT = "constant"
"""Label of the constant feature."""

Half = Literal["first", "second"]
"""Of the examples that are fitted on."""

QUANTILES = (0.9, 0.75, 0.5, 0.25)
"""Of a feature's activations, where ordinary examples are taken from, between the highest and the lowest."""

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
    """What a feature responds to, as images.

    All but `direction` are empty for the constant feature, which is equal on all inputs.

    Attributes:
        highest: inputs where it is highest, first the highest.
        lowest: inputs where it is lowest, first the lowest.
        direction: the feature itself drawn as an image, at layers whose coordinates are pixels.
        quantiles: by `QUANTILES`, inputs whose activation lies there.
        common: the model's first inputs, whatever the feature: the same for all features of all methods.
        map: the activation on every input, where these are pairs of numbers: the first down, the second across.
    """

    highest: tuple[ExampleImage, ...]
    lowest: tuple[ExampleImage, ...]
    direction: UInt8[Tensor, "height width 3"] | None
    quantiles: tuple[tuple[ExampleImage, ...], ...] = ()
    common: tuple[ExampleImage, ...] = ()
    map: UInt8[Tensor, "height width 3"] | None = None


PictureFeatures = Callable[[Chain, dict[str, Basis]], dict[str, list[FeaturePicture]]]


@dataclass(frozen=True)
class Contexts:
    """Places where a feature is looked at: such as those where it is most extreme, the most extreme first.

    Attributes:
        sequences: numbers of the sequences.
        positions: of the token that each place is about.
        activations: the feature at the tokens around that position, NaN where the window reaches out of the sequence.
    """

    sequences: Int64[Tensor, "feature n"]
    positions: Int64[Tensor, "feature n"]
    activations: Float[Tensor, "feature n window"]


@dataclass(frozen=True)
class LogitEffects:
    """The tokens whose logits rise and fall most with each feature, the most changed first.

    Values are the changes per standard deviation of the feature, less the mean over all tokens, which no probability
    depends on.
    """

    raised: Int64[Tensor, "feature n"]
    raised_by: Float[Tensor, "feature n"]
    lowered: Int64[Tensor, "feature n"]
    lowered_by: Float[Tensor, "feature n"]


@dataclass(frozen=True)
class LayerContexts:
    """What a node layer's first features, the constant excepted, respond to and what they do to the logits.

    Attributes:
        first: index in the basis of the feature that is described first; the others follow in the basis's order.
        highest: contexts in which each feature is highest, one per sequence at most.
        lowest: contexts in which it is lowest, likewise.
        histogram: number of tokens by activation, in bins of equal width from the feature's lowest activation to its
            highest.
        mean: of each feature over all tokens.
        standard_deviation: likewise.
        effects: None for a node layer without the residual stream, such as the logits.
        quantiles: by `QUANTILES`, contexts whose activation lies there.
        common: activations at the first tokens of the first sequences: the same places for all features and methods.
    """

    first: int
    highest: Contexts
    lowest: Contexts
    histogram: Int64[Tensor, "feature bin"]
    mean: Float[Tensor, " feature"]
    standard_deviation: Float[Tensor, " feature"]
    effects: LogitEffects | None
    quantiles: tuple[Contexts, ...]
    common: Float[Tensor, "feature sequence position"]

    @property
    def features(self) -> range:
        """Indices in the basis of the features that are described."""
        return range(self.first, self.first + len(self.mean))


@dataclass(frozen=True)
class TokenContexts:
    """Features of a language model in the sequences that were searched. All tensors are in main memory.

    Attributes:
        tokens: the sequences.
        vocabulary: text of every token; any string.
        before: tokens of a window that lie before the one it is about.
        by_layer: by node layer.
    """

    tokens: Int64[Tensor, "sequence position"]
    vocabulary: tuple[str, ...]
    before: int
    by_layer: dict[str, LayerContexts]


TokenContextsOf = Callable[[Chain, dict[str, Basis]], TokenContexts]


@dataclass(frozen=True)
class AnalysedModel:
    """A trained model, ready to be analysed.

    Attributes:
        chain: the model as sections in a given dtype, on the device that everything runs on.
        train: what bases and edges are fitted on (its `inputs`), and the score on it.
        test: held-out inputs for scores and ablations.
        label_features: a name for every kept feature of every node layer.
        picture_features: pictures of each node layer's first features, where inputs are images or pairs of numbers.
        token_contexts: where each node layer's first features are strongest, for models whose inputs are texts.
        order: of the training split, where a part of it is taken; None as it stands.
    """

    chain: Callable[[torch.dtype], Chain]
    train: EvaluationData
    test: EvaluationData
    label_features: LabelFeatures
    picture_features: PictureFeatures | None = None
    token_contexts: TokenContextsOf | None = None
    order: Int64[Tensor, " example"] | None = None

    def fit_inputs(self, n_examples: int | None, half: Half | None = None) -> Tensor:
        """The first `n_examples` of the training split, all by default; of those one half, where that is asked for."""
        if self.order is None or (n_examples is None and half is None):
            inputs = self.train.inputs[:n_examples]
        else:
            inputs = self.train.inputs[self.order[:n_examples]]
        middle = len(inputs) // 2
        if half is None:
            return inputs
        return inputs[:middle] if half == "first" else inputs[middle:]


def is_neuron_basis(basis: Basis) -> bool:
    """Whether features are the coordinates themselves, none of them constant."""
    matrix = basis.to_basis
    identity = torch.eye(*matrix.shape, dtype=matrix.dtype, device=matrix.device)
    return not basis.has_constant and torch.equal(matrix, identity)
