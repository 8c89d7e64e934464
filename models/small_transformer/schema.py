"""Configuration of the small transformer, `conf/model/small_transformer.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from models.schema import Betas, Count, ModelSchema, NotNegative, Positive, Share, Strict


class Training(Strict):
    """Minibatch AdamW on a cosine schedule, and what it should come to."""

    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_share: Share
    betas: Betas
    weight_decay: NotNegative
    evaluate_every: Count
    target_cross_entropy: Positive


class Schema(ModelSchema):
    """`model=small_transformer`."""

    room: ClassVar[str] = "models.small_transformer.room:SmallTransformer"
    randomizations: ClassVar[tuple[str, ...]] = ("weights", "shuffled")
    expects_null: ClassVar[Mapping[str, str]] = {}

    n_layers: Count
    d_model: Count
    n_heads: Count
    d_head: Annotated[int, Field(ge=2)]
    d_mlp: Count
    vocabulary: Literal["character", "bpe"]
    vocabulary_size: Count | None
    sequence_length: Annotated[int, Field(ge=2)]
    test_share: Share
    split_seed: Annotated[int, Field(ge=0)]
    training: Training

    @model_validator(mode="after")
    def only_byte_pairs_have_a_size(self) -> Schema:
        """The characters are those of the text, however many."""
        if self.vocabulary == "character" and self.vocabulary_size is not None:
            raise ValueError(
                f"vocabulary_size={self.vocabulary_size}: of byte pairs; expected null with vocabulary=character"
            )
        return self
