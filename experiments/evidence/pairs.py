"""Two methods on the same models: values side by side, their differences and the logarithms of their ratios."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import TypeVar

import numpy as np
from jaxtyping import Float

Model = TypeVar("Model", bound=Hashable)
ROUND_OFF = 1e-12
"""Relative to the larger value: measures that differ by less are equal but for the order of their sums."""


@dataclass(frozen=True)
class Pairs:
    """Values of two methods, one pair for each model.

    Attributes:
        ours: the first method's, finite.
        theirs: the second's, of the same models.
        left_out: how many models only one of the two has a finite value of.
    """

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.ours)

    @cached_property
    def differences(self) -> Float[np.ndarray, " model"]:
        """The first method's value less the second's; zero where they are equal but for round-off."""
        ours, theirs = np.array(self.ours, dtype=float), np.array(self.theirs, dtype=float)
        found = ours - theirs
        found[np.abs(found) <= ROUND_OFF * np.maximum(np.abs(ours), np.abs(theirs))] = 0.0
        return found

    @property
    def have_ratios(self) -> bool:
        """Whether every value is above zero."""
        return bool(self.ours) and min(*self.ours, *self.theirs) > 0

    @cached_property
    def log_ratios(self) -> Float[np.ndarray, " model"]:
        """Logarithm of the first method's value over the second's. Raises ValueError where a value is not above 0."""
        if not self.have_ratios:
            raise ValueError("a value that is not above zero has no ratio to another")
        found = np.log(np.array(self.ours, dtype=float) / np.array(self.theirs, dtype=float))
        return np.where(self.differences == 0, 0.0, found)

    @property
    def n_less(self) -> int:
        """Models of which the first method's value is the smaller."""
        return int((self.differences < 0).sum())

    @property
    def n_more(self) -> int:
        """Models of which it is the larger."""
        return int((self.differences > 0).sum())

    @property
    def n_equal(self) -> int:
        """Models of which both are equal."""
        return len(self) - self.n_less - self.n_more


def paired(ours: Mapping[Model, float | int | None], theirs: Mapping[Model, float | int | None]) -> Pairs:
    """Values of two methods by model; a model is left out where either value is missing or no finite number."""
    found_ours, found_theirs = finite(ours), finite(theirs)
    both = [model for model in found_ours if model in found_theirs]
    left_out = len(found_ours.keys() | found_theirs.keys()) - len(both)
    return Pairs(tuple(found_ours[model] for model in both), tuple(found_theirs[model] for model in both), left_out)


def finite(values: Mapping[Model, float | int | None]) -> dict[Model, float]:
    """Those that are finite numbers."""
    return {model: float(value) for model, value in values.items() if value is not None and isfinite(value)}
