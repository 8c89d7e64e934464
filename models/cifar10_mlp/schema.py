"""Configuration of the MLP on images, `conf/model/cifar10_mlp.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field

from models.memory import SINGLE, Need, grams
from models.vision.configuration import ImageClassifierSchema


class Schema(ImageClassifierSchema):
    """`model=cifar10_mlp`."""

    room: ClassVar[str] = "models.cifar10_mlp.room:Cifar10Mlp"

    hidden_sizes: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=1)]

    def memory_needs(self) -> Iterator[Need]:
        """The input and the output are small."""
        sizes = self.hidden_sizes
        yield Need("weights", SINGLE * sum(a * b for a, b in pairwise(sizes)), ("hidden_sizes",))
        yield Need("bases of the node layers", grams(sizes), ("hidden_sizes",))
