"""What a run computes and how exactly: the keys of `analysis`."""

from __future__ import annotations

import re
from math import isfinite
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from experiments.pipeline.metric_keys import plain
from models.schema import Count, NotNegative, Positive, Seed, Strict

Stage = Literal["score", "basis", "edges", "ablation", "labels", "figures"]
LABELLED = frozenset({"labels", "edges", "figures"})
"""Stages whose results bear the features' names."""
JUDGED = frozenset({"edges", "ablation", "figures"})
"""Stages that take features for what they are, and so by default have the run say which are sure."""
FEWEST_RESAMPLES = 200
"""Of which five lie beyond either end of an interval that holds 95 %."""
BYTES = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}


Tolerance = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
"""Of any score; a share's is at most one (`experiments.config.scores`)."""


class CommunitiesConfig(Strict):
    """Leiden on the interaction graph."""

    edge_weight: Literal["auto", "log", "sqrt"]
    resolution: Positive
    seed: Seed


class ProbesConfig(Strict):
    """Random signs that `estimator=stochastic` draws; without it they mean nothing."""

    over: Literal["positions", "positions_and_features"]
    n: Annotated[int, Field(ge=2, le=10**5)]
    seed: Seed


class AblateConfig(Strict):
    """What of a model is ablated."""

    nodes: list[str] | None
    edges: list[str] | None
    node_search: Literal["every", "bisection"]


Identification = Literal["rounding", "halves"]
"""What tells which features are identified: fits that are made again."""


class AnalysisConfig(Strict):
    """What to compute, and how exactly."""

    stages: Annotated[list[Stage], Field(min_length=1)]
    estimate_only: bool
    n_examples: Count | None
    n_test_examples: Count | None
    n_score_examples: Count | None
    n_edge_examples: Count | None
    half: Literal["first", "second"] | None
    node_layers: Annotated[list[str], Field(min_length=1)] | None
    integration: Literal["gradient", "trapezoidal", "gauss_legendre"]
    n_points: Annotated[int, Field(ge=1, le=1000)] | None
    truncation_rule: Literal["relative", "absolute"]
    truncation: NotNegative | None
    estimator: Literal["auto", "closed_form", "exact", "stochastic"]
    probes: ProbesConfig
    memory_budget: str | int
    disk_budget: str | int
    ablation_dtype: Literal["float32", "float64"]
    tolerances: Annotated[list[Tolerance], Field(min_length=1)] | None
    ablate: AblateConfig
    resamples: Annotated[int, Field(ge=0, le=10**6)]
    identify_by: list[Identification] | None
    communities: CommunitiesConfig

    @field_validator("memory_budget")
    @classmethod
    def is_a_size(cls, budget: str | int) -> str | int:
        """A number of bytes, or one with a unit; at least a megabyte."""
        if bytes_of(budget) < BYTES["MB"]:
            raise ValueError("expected a size of at least 1MB, such as 128MB")
        return budget

    @field_validator("disk_budget")
    @classmethod
    def is_a_size_or_none(cls, budget: str | int) -> str | int:
        """A number of bytes, or one with a unit."""
        if bytes_of(budget) < 0:
            raise ValueError("expected a size, such as 8GB, or 0B for none")
        return budget

    @field_validator("stages")
    @classmethod
    def are_named_once(cls, stages: list[Stage]) -> list[Stage]:
        """Each stage is carried out once."""
        for stage in stages:
            if stages.count(stage) > 1:
                raise ValueError(f"{stage} is there twice; expected each once")
        return stages

    @field_validator("tolerances")
    @classmethod
    def have_a_key_each(cls, tolerances: list[float] | None) -> list[float] | None:
        """Metrics are told apart by the tolerance as it is written."""
        written: dict[str, float] = {}
        for tolerance in tolerances or ():
            key = plain(tolerance)
            if key in written:
                both = f"{written[key]:g} and {tolerance:g}"
                raise ValueError(f"{both} are both {key} in the metrics' keys; expected each once")
            if tolerance > 0 and key == "0":
                raise ValueError(f"{tolerance:g} is 0 in the metrics' keys; expected 0, or at least 1e-12")
            written[key] = tolerance
        return tolerances

    @property
    def names_features(self) -> bool:
        """Whether features get labels, which are looked for in data of their own."""
        return not LABELLED.isdisjoint(self.stages)

    @model_validator(mode="after")
    def makes_sense(self) -> AnalysisConfig:
        """Combinations that mean nothing are refused."""
        if "edges" in self.stages and "basis" not in self.stages:
            raise ValueError(f"stages={self.stages}: edges are edges between features; expected basis among the stages")
        if "figures" in self.stages and "basis" not in self.stages:
            raise ValueError(f"stages={self.stages}: there is nothing to draw; expected basis among the stages")
        if "labels" in self.stages and "basis" not in self.stages:
            raise ValueError(f"stages={self.stages}: labels are names of features; expected basis among the stages")
        if "ablation" in self.stages and "basis" not in self.stages:
            raise ValueError(f"stages={self.stages}: ablation removes features; expected basis among the stages")
        if 0 < self.resamples < FEWEST_RESAMPLES:
            raise ValueError(
                f"resamples={self.resamples}: too few for the ends of a 95 % interval; "
                f"expected 0, or {FEWEST_RESAMPLES} or more"
            )
        if self.resamples and "ablation" not in self.stages:
            raise ValueError(
                f"resamples={self.resamples}: test examples are resampled for needed counts; "
                "expected ablation among the stages, or 0"
            )
        if self.resamples and self.ablate.node_search == "bisection":
            raise ValueError(
                f"resamples={self.resamples}: on resamples every number of features is tried; "
                "expected ablate.node_search=every, or resamples=0"
            )
        if self.integration == "gradient" and self.n_points not in (None, 1):
            raise ValueError(
                f"n_points={self.n_points}: integration=gradient has one point; expected trapezoidal or gauss_legendre"
            )
        ablates_all_edges = {"edges", "ablation"} <= set(self.stages) and self.ablate.edges is None
        if self.communities.edge_weight == "log" and not ablates_all_edges:
            raise ValueError(
                "communities.edge_weight=log takes its smallest edge from the edge ablation; "
                "expected edges and ablation among the stages and ablate.edges=null, or sqrt"
            )
        if self.truncation_rule == "relative" and self.truncation is not None and self.truncation >= 1:
            raise ValueError(f"truncation={self.truncation}: expected a share of the largest eigenvalue, under 1")
        return self

    @property
    def memory_bytes(self) -> int:
        """The memory budget in bytes."""
        return bytes_of(self.memory_budget)

    @property
    def disk_bytes(self) -> int:
        """The disk budget in bytes."""
        return bytes_of(self.disk_budget)


def bytes_of(size: str | int) -> int:
    """`128MB`, `1.5 GB` or a number of bytes; -1 for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B)?\s*", str(size), flags=re.IGNORECASE)
    n_bytes = float(match[1]) * BYTES[(match[2] or "B").upper()] if match else -1.0
    return int(n_bytes) if isfinite(n_bytes) else -1
