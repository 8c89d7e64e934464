"""Configuration of the modular-addition transformer, `conf/model/modular_addition.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from models.memory import DOUBLE, SINGLE, Need, grams
from models.schema import MOST, Betas, Count, ModelSchema, NotNegative, Positive, Share, SplitSeed, Strict


class Training(Strict):
    """AdamW, and when it stops."""

    batch_size: Count | None
    learning_rate: Positive
    weight_decay: NotNegative
    betas: Betas
    warmup_steps: Count
    max_steps: Count
    evaluate_every: Count
    target_accuracy: Annotated[float, Field(gt=0, le=1)]
    patience: Count


class Schema(ModelSchema):
    """`model=modular_addition`."""

    room: ClassVar[str] = "models.modular_addition.room:ModularAddition"

    modulus: Annotated[int, Field(ge=2, le=MOST)]
    d_model: Count
    n_heads: Count
    d_head: Count
    d_mlp: Count
    train_fraction: Share
    split_seed: SplitSeed
    training: Training

    def memory_needs(self) -> Iterator[Need]:
        """The pairs come first: there are as many as the modulus squared."""
        v, d, inner = self.modulus + 1, self.d_model, self.n_heads * self.d_head
        yield Need("all pairs of numbers", 9 * DOUBLE * self.modulus**2, ("modulus",))
        yield Need(
            "weights",
            SINGLE * (2 * v * d + 4 * d * inner + 2 * d * self.d_mlp),
            ("modulus", "d_model", "n_heads", "d_head", "d_mlp"),
        )
        yield Need("bases of the node layers", grams([d, d, d, v]), ("modulus", "d_model"))

    @model_validator(mode="after")
    def both_splits_have_examples(self) -> Schema:
        """An empty split has no score."""
        n_pairs = self.modulus**2
        if not 0 < int(self.train_fraction * n_pairs) < n_pairs:
            raise ValueError(f"train_fraction={self.train_fraction} leaves a split of the {n_pairs} pairs empty")
        return self
