"""Configuration of the MLP of known structure, `conf/model/block_diagonal_mlp.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from models.memory import DOUBLE, Need, grams
from models.schema import Count, Layers, ModelSchema

ALL_COMBINATIONS = "is tested on all combinations, in order: the first of them are not independent"


class Schema(ModelSchema):
    """`model=block_diagonal_mlp`."""

    room: ClassVar[str] = "models.block_diagonal_mlp.room:BlockDiagonalMlp"
    randomizations: ClassVar[tuple[str, ...]] = ("shuffled",)
    expects_null: ClassVar[Mapping[str, str]] = {
        **ModelSchema.expects_null,
        "analysis.n_test_examples": ALL_COMBINATIONS,
    }

    n_blocks: Annotated[int, Field(ge=2, le=20)]
    block_width: Count
    n_layers: Annotated[Layers, Field(ge=2)]
    n_outputs_per_block: Annotated[Count, Field(ge=2)]
    points_per_block: Annotated[int, Field(ge=2, le=10**6)]
    correlation: Annotated[float, Field(ge=0, lt=1)]

    def memory_needs(self) -> Iterator[Need]:
        """Weights and rotations of all layers in float64, and the examples, of which the schema bounds the number."""
        width, n_outputs = self.n_blocks * self.block_width, self.n_blocks * self.n_outputs_per_block
        n_weights = self.n_layers * 2 * width**2 + width * n_outputs
        yield Need("weights and rotations", DOUBLE * n_weights, ("block_width", "n_layers", "n_outputs_per_block"))
        n_examples = self.points_per_block**self.n_blocks
        yield Need("the examples", DOUBLE * n_examples * width, ("block_width", "points_per_block"))
        widths = [width] * self.n_layers + [n_outputs]
        yield Need("bases of the node layers", grams(widths), ("block_width", "n_layers", "n_outputs_per_block"))

    @model_validator(mode="after")
    def points_span_the_block(self) -> Schema:
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
