"""Configuration of the convolutional network, `conf/model/cifar10_cnn.yaml`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from models.vision.configuration import ImageClassifierSchema


class Schema(ImageClassifierSchema):
    """`model=cifar10_cnn`."""

    room: ClassVar[str] = "models.cifar10_cnn.room:Cifar10Cnn"

    channels: Annotated[list[Annotated[int, Field(ge=1, le=2048)]], Field(min_length=1, max_length=3)]
    pooling: Literal["average", "max"]

    @model_validator(mode="after")
    def a_batch_has_a_variance(self) -> Schema:
        """Batch normalisation of a single value is nothing."""
        if self.training.batch_size < 2:
            raise ValueError("training.batch_size=1: batch normalisation expects at least 2")
        return self
