"""A training whose loss is no number any more, which no further step brings back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from models.errors import UserError


def refuse_divergence(loss: float, first_step: int, learning_rate: float) -> None:
    """Raises UserError for a loss that is not finite, from `first_step` on."""
    if not math.isfinite(loss):
        raise UserError(
            f"model.training.learning_rate={learning_rate:g}: training diverged, the loss is {loss} from step "
            f"{first_step} on; expected a smaller one"
        )


def refuse_diverged_weights(weights: Iterable[Tensor], learning_rate: float, state: Path | None = None) -> None:
    """Raises UserError for weights that are not finite, after the last step, which `state` is then no use of."""
    if not all(weight.isfinite().all() for weight in weights):
        if state is not None:
            state.unlink(missing_ok=True)
        raise UserError(
            f"model.training.learning_rate={learning_rate:g}: training diverged, the last step leaves weights that are "
            "not finite; expected a smaller one"
        )
