"""How training stands, and the file of an interrupted one: tensors by name, and what was measured so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checked_tensors import read_checked, write_checked


@dataclass(frozen=True)
class TrainingEvaluation:
    """How training stands.

    Attributes:
        step: optimiser steps done.
        loss: on the training split, in nats: the mean of the steps since the evaluation before.
        score: on the test split, what the model is scored by.
        learning_rate: of the step.
    """

    step: int
    loss: float
    score: float
    learning_rate: float


OnStep = Callable[[int, TrainingEvaluation | None], None]
"""Called after every step with the number of steps done and the last evaluation."""


def write_training_state(path: Path, tensors: dict[str, Tensor], history: Sequence[TrainingEvaluation]) -> None:
    """Keep tensors and evaluations; the file appears whole or not at all."""
    write_checked(path, tensors, {"history": json.dumps([asdict(entry) for entry in history])})


def read_training_state(path: Path, device: torch.device) -> tuple[dict[str, Tensor], list[TrainingEvaluation]] | None:
    """Tensors and evaluations; None where there is no state that is what was written."""
    if (state := read_checked(path)) is None:
        return None
    try:
        history = [TrainingEvaluation(**values) for values in json.loads(state.header["history"])]
    except (ValueError, KeyError, TypeError):
        return None
    return {name: tensor.to(device) for name, tensor in state.tensors.items()}, history
