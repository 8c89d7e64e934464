"""An axis along which the values of one configuration key stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from experiments.figures.hyperparameter_values import Value, distinct, is_numeric, value_text

LOGARITHMIC_FROM = 20.0
"""Largest over smallest value from which a linear axis would crowd the small ones."""
CHARACTER = 0.02
"""Width of a character, as a share of an Axes of half a page."""
LONGEST_NAME = 18
"""Characters below an axis; of a longer name both ends are written."""
JOINTS = " .,_"
"""Left out beside the sign for what is left out."""
CHARACTERS_BESIDE = 40
"""That fit below half a page; more are written at an angle."""


class ValueAxis:
    """Where values of one key stand: numbers to scale, logarithmically if they span decades; others side by side."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = distinct(values)
        self.is_numeric = all(map(is_numeric, self.values))
        self.is_logarithmic = (
            self.is_numeric and self.values[0] > 0 and self.values[-1] / self.values[0] >= LOGARITHMIC_FROM
        )
        self._places = {value_text(value): index for index, value in enumerate(self.values)}

    def place(self, value: Value) -> float:
        """On the axis."""
        return float(value) if self.is_numeric else float(self._places[value_text(value)])

    def has_room(self) -> bool:
        """Whether numbers can be written at their places without running into each other."""
        places = [math.log(value) if self.is_logarithmic else float(value) for value in self.values]
        needed = CHARACTER * (1 + max(len(value_text(value)) for value in self.values)) * (places[-1] - places[0])
        return all(following - place >= needed for place, following in pairwise(places))

    def prepare(self, axes: Axes) -> None:
        """Scale and ticks."""
        if self.is_logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # exponents are set too small
        if not self.is_numeric or self.has_room():
            texts = {self.place(value): shortened(value_text(value)) for value in self.values}
            axes.xaxis.set_major_locator(FixedLocator(list(texts)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: texts.get(place, "")))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        if not self.is_numeric:
            axes.set_xlim(-0.5, len(self.values) - 0.5)
            if sum(len(shortened(value_text(value))) for value in self.values) > CHARACTERS_BESIDE:
                for label in axes.get_xticklabels():
                    label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")


def shortened(name: str) -> str:
    """Both ends of a name that is too long to stand below an axis."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[: half - 1].rstrip(JOINTS)}…{name[-half:].lstrip(JOINTS)}"
