"""Configuration of the small transformer, `conf/model/small_transformer.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from models.memory import SINGLE, Need, grams
from models.schema import Betas, Count, Layers, ModelSchema, NotNegative, Positive, Share, SplitSeed, Strict


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

    n_layers: Layers
    d_model: Count
    n_heads: Count
    d_head: Annotated[Count, Field(ge=2)]
    d_mlp: Count
    vocabulary: Literal["character", "bpe"]
    vocabulary_size: Annotated[int, Field(ge=1, le=2**20)] | None
    sequence_length: Annotated[Count, Field(ge=2)]
    test_share: Share
    split_seed: SplitSeed
    training: Training

    def memory_needs(self) -> Iterator[Need]:
        """The vocabulary is known from the text alone, and is not counted."""
        d, inner, length = self.d_model, self.n_heads * self.d_head, self.sequence_length
        yield Need(
            "weights",
            SINGLE * (self.n_layers * (4 * d * inner + 2 * d * self.d_mlp) + length * d),
            ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "sequence_length"),
        )
        scores = SINGLE * self.n_heads * length**2
        yield Need("attention scores of a sequence", scores, ("n_heads", "sequence_length"))
        yield Need("bases of the node layers", grams([d] * (2 * self.n_layers + 1)), ("n_layers", "d_model"))

    @model_validator(mode="after")
    def only_byte_pairs_have_a_size(self) -> Schema:
        """The characters are those of the text, however many."""
        if self.vocabulary == "character" and self.vocabulary_size is not None:
            raise ValueError(
                f"vocabulary_size={self.vocabulary_size}: of byte pairs; expected null with vocabulary=character"
            )
        return self
