"""What the configurations of image classifiers have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.schema import Count, ModelSchema, NotNegative, Positive, Share, Strict


class Training(Strict):
    """Minibatch SGD on a one-cycle schedule."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    warmup_share: Share
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NotNegative
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    flip: bool
    crop: Annotated[int, Field(ge=0, le=7)]


class ImageClassifierSchema(ModelSchema):
    """Images and training."""

    dataset: Literal["cifar10", "digits"]
    training: Training
