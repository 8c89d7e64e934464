"""Typed schema of the composed configuration: every key, its type and its range (USE.md).

Defaults live in `conf/` alone; here is what may be written there, but for the model's and the method's parts, which the
model's own schema and the method's function know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, SerializeAsAny, model_validator

from experiments.config.analysis_schema import JUDGED, AnalysisConfig, Identification
from experiments.config.method_schema import MethodPart, validated_method
from models import validated_model
from models.schema import ModelSchema, ModelSettings, PathText, Seed, Strict


class DataConfig(Strict):
    """Where data sets lie."""

    root: PathText
    path: PathText | None


LONGEST_TAG = 64
Tag = Annotated[str, Field(min_length=1, max_length=LONGEST_TAG)]
TrackedName = Annotated[str, Field(min_length=1, max_length=128)]
"""As long as W&B takes them."""


class TrackingConfig(Strict):
    """Weights & Biases."""

    mode: Literal["offline", "online", "disabled"] | None
    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\\#?%:]*$")] | None
    entity: TrackedName | None
    name: TrackedName | None
    group: TrackedName | None
    tags: list[Tag]
    notes: str | None
    artifacts: bool


class RunConfig(Strict):
    """One run."""

    model: Annotated[SerializeAsAny[ModelSchema], PlainValidator(validated_model)]
    method: Annotated[SerializeAsAny[MethodPart], PlainValidator(validated_method)]
    data: DataConfig
    analysis: AnalysisConfig
    tracking: TrackingConfig
    seed: Seed
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    threads: Annotated[int, Field(ge=1, le=1024)] | None
    dtype: Literal["float64", "float32"]
    output_directory: PathText
    objective: Annotated[str, Field(min_length=1)] | None

    @model_validator(mode="after")
    def makes_sense(self) -> RunConfig:
        """Combinations across groups that mean nothing are refused."""
        for key, reason in self.model.expects_null.items():
            group, _, name = key.partition(".")
            if (value := getattr(getattr(self, group), name)) is not None:
                raise ValueError(f"{key}={value}: model={self.model.kind} {reason}; expected null")
        return self

    @property
    def identify_by(self) -> list[Identification]:
        """What was asked for; both where nothing was, but for a method that searches, or where a basis is all."""
        if self.analysis.identify_by is None:
            refits = not (self.method.method.searches or JUDGED.isdisjoint(self.analysis.stages))
            return ["rounding", "halves"] if refits else []
        return self.analysis.identify_by

    @property
    def cache_directory(self) -> Path:
        """Where finished stages are kept, and what else is worth keeping."""
        return Path(self.output_directory) / "cache"

    @property
    def model_settings(self) -> ModelSettings[Any]:
        """What the model may depend on."""
        node_layers = self.analysis.node_layers
        return ModelSettings(
            model=self.model,
            seed=self.seed,
            data_root=Path(self.data.root),
            data_path=self.data.path,
            node_layers=None if node_layers is None else tuple(node_layers),
            cache=self.cache_directory,
            memory_budget=self.analysis.memory_bytes,
        )
