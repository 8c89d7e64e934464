"""Configuration of the MLP on images, `conf/model/cifar10_mlp.yaml`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from models.vision.configuration import ImageClassifierSchema


class Schema(ImageClassifierSchema):
    """`model=cifar10_mlp`."""

    room: ClassVar[str] = "models.cifar10_mlp.room:Cifar10Mlp"

    hidden_sizes: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=1)]
