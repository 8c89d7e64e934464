"""Configuration of the modular-addition transformer, `conf/model/modular_addition.yaml`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from models.schema import Betas, Count, ModelSchema, NotNegative, Positive, Share, Strict


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

    modulus: Annotated[int, Field(ge=2)]
    d_model: Count
    n_heads: Count
    d_head: Count
    d_mlp: Count
    train_fraction: Share
    split_seed: Annotated[int, Field(ge=0)]
    training: Training

    @model_validator(mode="after")
    def both_splits_have_examples(self) -> Schema:
        """An empty split has no score."""
        n_pairs = self.modulus**2
        if not 0 < int(self.train_fraction * n_pairs) < n_pairs:
            raise ValueError(f"train_fraction={self.train_fraction} leaves a split of the {n_pairs} pairs empty")
        return self
