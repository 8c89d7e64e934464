"""What all configuration schemas are built from, and what of a run's configuration a model may depend on.

Nothing heavy is imported, so that checking a configuration takes no time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from models.memory import Need

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
MOST = 2**31 - 1
"""Of anything that is counted; what memory has room for is far less, and is looked at by itself (`memory_needs`)."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
SplitSeed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of torch's generator."""
Layers = Annotated[int, Field(ge=1, le=1000)]
"""Weight matrices, or blocks: each takes work of its own, whatever its size."""
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""Part of a path: `output_directory/<model>/<method>/…`."""
Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
"""Of Adam."""


LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes, on nearly every file system."""


def is_possible_path(path: str) -> str:
    """The path; raises ValueError for one that no file system takes."""
    if "\0" in path:
        raise ValueError("expected a path without a null character")
    n_bytes, longest = len(os.fsencode(path)), max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > LONGEST_NAME or n_bytes > LONGEST_PATH:
        raise ValueError(
            f"a path of {n_bytes} bytes, {longest} of them in one name; expected at most {LONGEST_PATH}, "
            f"and {LONGEST_NAME} in a name"
        )
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(is_possible_path)]


class Strict(BaseModel):
    """No unknown key, no silent conversion, no change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSchema(Strict):
    """The part of the configuration that is a model's own; every model's schema is called `Schema` and derives from it.

    Attributes:
        kind: the model's name, that of its folder and of its option in `conf/model/`.
        checkpoint: weights to load, where the model has another source of them.
        room: `module:class` of the `Room` that carries the model out, imported when a run needs it.
        randomize: a control in place of the model: `weights` before training, `shuffled` within each matrix, or trained
            on shuffled `labels`.
        randomizations: which of these the model has.
        expects_null: by dotted key of another part of the configuration, what about the model makes that key mean
            nothing: it must then be null.
    """

    kind: str
    checkpoint: PathText | None
    randomize: Literal["weights", "shuffled", "labels"] | None = None
    room: ClassVar[str]
    randomizations: ClassVar[tuple[str, ...]] = ("weights", "shuffled", "labels")
    expects_null: ClassVar[Mapping[str, str]] = {"data.path": "reads no text"}

    @model_validator(mode="after")
    def can_be_randomized(self) -> ModelSchema:
        """Labels are shuffled in training, which a checkpoint has behind it."""
        if self.randomize is not None and self.randomize not in self.randomizations:
            expected = ", ".join((*self.randomizations, "null"))
            raise ValueError(f"randomize={self.randomize}: model={self.kind} has no such control; expected {expected}")
        if self.randomize == "labels" and self.checkpoint is not None:
            raise ValueError("randomize=labels: nothing is trained with a checkpoint; expected weights or shuffled")
        return self

    def memory_needs(self) -> Iterator[Need]:
        """What has to be in memory as a whole, by sizes alone; nothing where they are not known from them."""
        return iter(())

    def trained_as(self, *left_out: str) -> dict[str, Any]:
        """What of it training depends on, as JSON: all but where weights come from and what is done to them later."""
        settings = self.model_dump(exclude={"checkpoint", "randomize", *left_out})
        return settings | ({"randomize": "labels"} if self.randomize == "labels" else {})


SchemaT = TypeVar("SchemaT", bound=ModelSchema)


@dataclass(frozen=True)
class ModelSettings(Generic[SchemaT]):
    """All that a model may depend on.

    Attributes:
        model: its own part of the configuration.
        seed: of all that is random in it.
        data_root: where data sets lie, or are downloaded to.
        data_path: a text for models that read one.
        node_layers: names and patterns of those to be analysed; None for the model's default.
        cache: a folder for what is worth keeping between runs.
        memory_budget: bytes of one chunk's working set.
    """

    model: SchemaT
    seed: int
    data_root: Path
    data_path: str | None
    node_layers: tuple[str, ...] | None
    cache: Path
    memory_budget: int
