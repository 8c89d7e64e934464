"""Configuration of the MLP of known structure, `conf/model/block_diagonal_mlp.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from models.schema import Count, ModelSchema

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
    n_layers: Annotated[int, Field(ge=2)]
    n_outputs_per_block: Annotated[int, Field(ge=2)]
    points_per_block: Annotated[int, Field(ge=2)]
    correlation: Annotated[float, Field(ge=0, lt=1)]

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
