"""Training the modular-addition transformer: full-batch AdamW until it generalises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from models.modular_addition.data import Examples
from models.modular_addition.transformer import Architecture, Weights, initial_weights, logits_from_pairs
from models.training_state import TrainingEvaluation


@dataclass(frozen=True)
class TrainingSettings:
    """AdamW on the whole training split at once.

    Training stops when the test accuracy was at least `target_accuracy` in `patience` evaluations running, one every
    `evaluate_every` steps, or after `max_steps`.
    """

    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_steps: int
    max_steps: int
    evaluate_every: int
    target_accuracy: float
    patience: int


@dataclass(frozen=True)
class TrainingResult:
    """Trained weights, how training went and whether it met its criterion."""

    weights: Weights
    history: list[TrainingEvaluation]
    reached_target: bool


def train(
    architecture: Architecture,
    settings: TrainingSettings,
    train_split: Examples,
    test_split: Examples,
    seed: int,
    device: torch.device,
    on_evaluation: Callable[[TrainingEvaluation], None] = lambda evaluation: None,
) -> TrainingResult:
    """Train in float32; deterministic by seed on one machine.

    Weight decay drives numbers into denormals, on which a CPU is several times slower: they are flushed to zero.
    """
    torch.set_flush_denormal(True)
    weights = {
        name: weight.detach().to(device).requires_grad_()
        for name, weight in initial_weights(architecture, seed).items()
    }
    train_split, test_split = train_split.to(device), test_split.to(device)
    train_pairs, test_pairs = train_split.pairs(), test_split.pairs()
    optimiser = torch.optim.AdamW(
        weights.values(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / settings.warmup_steps))

    history: list[TrainingEvaluation] = []
    running = 0
    for step in range(1, settings.max_steps + 1):
        loss = functional.cross_entropy(logits_from_pairs(weights, *train_pairs), train_split.labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        learning_rate = float(schedule.get_last_lr()[0])
        schedule.step()
        if step % settings.evaluate_every == 0 or step == settings.max_steps:
            with torch.no_grad():
                predictions = logits_from_pairs(weights, *test_pairs).argmax(-1)
            accuracy = (predictions == test_split.labels).double().mean().item()
            history.append(TrainingEvaluation(step, loss.item(), accuracy, learning_rate))
            on_evaluation(history[-1])
            running = running + 1 if accuracy >= settings.target_accuracy else 0
            if running == settings.patience:
                break
    trained = {name: weight.detach() for name, weight in weights.items()}
    return TrainingResult(trained, history, running >= settings.patience)
