"""What models are scored by: its name, its direction, and how far from the model's own score counts as unharmed."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.config.schema import RunConfig
from models.errors import UserError

TOLERANCES: dict[str, list[float]] = {
    "accuracy": [0.001, 0.01, 0.05],
    "cross-entropy": [0.01, 0.05, 0.1],
}
"""By score, `analysis.tolerances` where it is null."""

NATS = "nats per token"
"""What cross-entropies are measured in; other scores are shares."""


@dataclass(frozen=True)
class Score:
    """The score of a model's outputs, as runs store it beside their ablations."""

    name: str
    lower_is_better: bool

    @property
    def in_nats(self) -> bool:
        """Whether it has a unit."""
        return self.name == "cross-entropy"

    @property
    def title(self) -> str:
        """`accuracy`, `cross-entropy (nats per token)`."""
        return f"{self.name} ({NATS})" if self.in_nats else self.name

    def tolerated(self, tolerance: float) -> str:
        """`accuracy - 0.001`, `cross-entropy + 0.01 nats`: the worst score that is within the tolerance."""
        sign = "+" if self.lower_is_better else "-"
        return f"{self.name} {sign} {tolerance:g}{' nats' if self.in_nats else ''}"


ACCURACY = Score("accuracy", lower_is_better=False)
"""Of files that say nothing of their score."""


def with_tolerances(config: RunConfig, score_name: str) -> RunConfig:
    """The configuration with the tolerances of the model's score in place of null.

    Raises UserError for a score that has none of its own, and for a tolerance that every accuracy is within.
    """
    if (given := config.analysis.tolerances) is not None:
        if score_name == "accuracy" and max(given) > 1:
            raise UserError(
                f"analysis.tolerances={given}: every accuracy is within {max(given):g}; expected shares, up to 1"
            )
        return config
    if score_name not in TOLERANCES:
        raise UserError(
            f"analysis.tolerances=null: of {', '.join(TOLERANCES)} alone is known what is little; "
            f"expected a list for the model's {score_name}"
        )
    analysis = config.analysis.model_copy(update={"tolerances": TOLERANCES[score_name]})
    return config.model_copy(update={"analysis": analysis})
