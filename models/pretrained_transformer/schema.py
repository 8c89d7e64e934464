"""Configuration of pretrained transformers, `conf/model/pretrained_transformer.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from models.memory import SINGLE, Need
from models.schema import Count, ModelSchema, PathText, Share, SplitSeed


class Schema(ModelSchema):
    """`model=pretrained_transformer`."""

    room: ClassVar[str] = "models.pretrained_transformer.room:PretrainedTransformer"
    randomizations: ClassVar[tuple[str, ...]] = ("weights", "shuffled")
    expects_null: ClassVar[Mapping[str, str]] = {}

    name: PathText
    trust_remote_code: bool
    sequence_length: Annotated[Count, Field(ge=2)]
    beginning_of_sequence: bool
    test_share: Share
    split_seed: SplitSeed
    n_train_sequences: Count | None
    n_test_sequences: Count | None

    def memory_needs(self) -> Iterator[Need]:
        """Of one head: how many there are is known from the model's folder."""
        yield Need("attention scores of a sequence", SINGLE * self.sequence_length**2, ("sequence_length",))
