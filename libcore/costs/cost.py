"""What a stage takes: operations, memory and disk, told before it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

FLOAT64 = "float64"
"""Of moments and closed forms, whatever activations are computed in."""


@dataclass(frozen=True)
class Cost:
    """Of one stage.

    Attributes:
        operations: in matrix products, two for each multiplication, by dtype; elementwise passes are not among them.
        memory: bytes that the stage brings at its peak, without the model, the data and the interpreter.
        disk: bytes that are written: of what the stage keeps, and of activations that go with the process.
        at_most: whether less may be done, as by an ablation that finds early what is needed.
    """

    operations: Mapping[str, int] = field(default_factory=dict)
    memory: int = 0
    disk: int = 0
    at_most: bool = False

    @property
    def total(self) -> int:
        """Operations of all dtypes."""
        return sum(self.operations.values())

    def seconds(self, rates: Mapping[str, float]) -> float:
        """At these operations per second by dtype, such as the machine's products of matrices have: the least."""
        return sum(count / rates[dtype] for dtype, count in self.operations.items() if count)


def together(*costs: Cost) -> Cost:
    """One after the other."""
    operations: Counter[str] = Counter()
    for cost in costs:
        operations.update(cost.operations)
    return Cost(
        dict(operations),
        max((cost.memory for cost in costs), default=0),
        sum(cost.disk for cost in costs),
        any(cost.at_most for cost in costs),
    )
