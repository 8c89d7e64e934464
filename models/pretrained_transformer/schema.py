"""Configuration of pretrained transformers, `conf/model/pretrained_transformer.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from models.schema import Count, ModelSchema, Share


class Schema(ModelSchema):
    """`model=pretrained_transformer`."""

    room: ClassVar[str] = "models.pretrained_transformer.room:PretrainedTransformer"
    randomizations: ClassVar[tuple[str, ...]] = ("weights", "shuffled")
    expects_null: ClassVar[Mapping[str, str]] = {}

    name: Annotated[str, Field(min_length=1)]
    sequence_length: Annotated[int, Field(ge=2)]
    beginning_of_sequence: bool
    test_share: Share
    split_seed: Annotated[int, Field(ge=0)]
    n_train_sequences: Count | None
    n_test_sequences: Count | None
