"""Typed schemas of the models in `conf/model/`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.schema import Count, NotNegative, Positive, Share, Strict


class FullBatchTrainingConfig(Strict):
    """Full-batch AdamW, and when it stops."""

    learning_rate: Positive
    weight_decay: NotNegative
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    warmup_steps: Count
    max_steps: Count
    evaluate_every: Count
    target_accuracy: Annotated[float, Field(gt=0, le=1)]
    patience: Count


class ModularAdditionConfig(Strict):
    """`model=modular_addition`."""

    kind: Literal["modular_addition"]
    checkpoint: str | None
    modulus: Annotated[int, Field(ge=2)]
    d_model: Count
    n_heads: Count
    d_head: Count
    d_mlp: Count
    train_fraction: Share
    split_seed: Annotated[int, Field(ge=0)]
    training: FullBatchTrainingConfig

    @model_validator(mode="after")
    def both_splits_have_examples(self) -> ModularAdditionConfig:
        """An empty split has no score."""
        n_pairs = self.modulus**2
        if not 0 < int(self.train_fraction * n_pairs) < n_pairs:
            raise ValueError(f"train_fraction={self.train_fraction} leaves a split of the {n_pairs} pairs empty")
        return self


class ImageTrainingConfig(Strict):
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


class Cifar10MlpConfig(Strict):
    """`model=cifar10_mlp`."""

    kind: Literal["cifar10_mlp"]
    checkpoint: str | None
    dataset: Literal["cifar10", "digits"]
    hidden_sizes: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=1)]
    training: ImageTrainingConfig


class Cifar10CnnConfig(Strict):
    """`model=cifar10_cnn`."""

    kind: Literal["cifar10_cnn"]
    checkpoint: str | None
    dataset: Literal["cifar10", "digits"]
    channels: Annotated[list[Annotated[int, Field(ge=1, le=2048)]], Field(min_length=1, max_length=3)]
    pooling: Literal["average", "max"]
    training: ImageTrainingConfig

    @model_validator(mode="after")
    def a_batch_has_a_variance(self) -> Cifar10CnnConfig:
        """Batch normalisation of a single value is nothing."""
        if self.training.batch_size < 2:
            raise ValueError("training.batch_size=1: batch normalisation expects at least 2")
        return self


class BlockDiagonalMlpConfig(Strict):
    """`model=block_diagonal_mlp`."""

    kind: Literal["block_diagonal_mlp"]
    checkpoint: str | None
    n_blocks: Annotated[int, Field(ge=2, le=20)]
    block_width: Count
    n_layers: Annotated[int, Field(ge=2)]
    n_outputs_per_block: Annotated[int, Field(ge=2)]
    points_per_block: Annotated[int, Field(ge=2)]
    correlation: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def points_span_the_block(self) -> BlockDiagonalMlpConfig:
        """`n` points around their mean span `n - 1` directions."""
        if self.points_per_block <= self.block_width:
            raise ValueError(
                f"points_per_block={self.points_per_block}: expected more than block_width={self.block_width}"
            )
        # With a correlation, the rows in which all blocks agree are repeated until they are about that share of all.
        if (n := self.points_per_block**self.n_blocks / (1 - self.correlation)) > 10**6:
            raise ValueError(
                f"points_per_block ** n_blocks / (1 - correlation) = {n:.3g} examples; expected at most 1e6"
            )
        return self


class TextTrainingConfig(Strict):
    """Minibatch AdamW on a cosine schedule, and what it should come to."""

    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_share: Share
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    weight_decay: NotNegative
    evaluate_every: Count
    target_cross_entropy: Positive


class SmallTransformerConfig(Strict):
    """`model=small_transformer`."""

    kind: Literal["small_transformer"]
    checkpoint: str | None
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
    training: TextTrainingConfig

    @model_validator(mode="after")
    def only_byte_pairs_have_a_size(self) -> SmallTransformerConfig:
        """The characters are those of the text, however many."""
        if self.vocabulary == "character" and self.vocabulary_size is not None:
            raise ValueError(
                f"vocabulary_size={self.vocabulary_size}: of byte pairs; expected null with vocabulary=character"
            )
        return self


class PretrainedTransformerConfig(Strict):
    """`model=pretrained_transformer`."""

    kind: Literal["pretrained_transformer"]
    checkpoint: str | None
    name: Annotated[str, Field(min_length=1)]
    sequence_length: Annotated[int, Field(ge=2)]
    beginning_of_sequence: bool
    test_share: Share
    split_seed: Annotated[int, Field(ge=0)]
    n_train_sequences: Count | None
    n_test_sequences: Count | None
