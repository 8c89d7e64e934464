"""Training the modular-addition transformer: AdamW until it generalises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import repeat

import torch
from torch import Tensor
from torch.nn import functional

from models.divergence import refuse_diverged_weights, refuse_divergence
from models.modular_addition.data import Examples
from models.modular_addition.transformer import Architecture, Weights, initial_weights, logits_from_pairs
from models.modular_addition.workers import Workers
from models.training_state import TrainingEvaluation


@dataclass(frozen=True)
class TrainingSettings:
    """AdamW on batches of `batch_size` examples; None, or more than there are, takes the whole training split.

    Training stops when the test accuracy was at least `target_accuracy` in `patience` evaluations running, one every
    `evaluate_every` steps, or after `max_steps`.
    """

    batch_size: int | None
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
    optimiser = torch.optim.AdamW(
        weights.values(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / settings.warmup_steps))

    history: list[TrainingEvaluation] = []
    losses: list[Tensor] = []
    running = 0
    batches = batches_of(train_split, settings.batch_size, seed)
    with Workers(device) as workers:
        for step, batch in zip(range(1, settings.max_steps + 1), batches, strict=False):
            losses.append(differentiate(weights, batch, workers))
            optimiser.step()
            learning_rate = float(schedule.get_last_lr()[0])
            schedule.step()
            if step % settings.evaluate_every == 0 or step == settings.max_steps:
                loss, score = torch.stack(losses).mean().item(), accuracy(weights, test_split, workers)
                is_finite = torch.stack(losses).isfinite()
                first = step - len(losses) + 1 + int(is_finite.int().argmin())
                refuse_divergence(loss, first, settings.learning_rate)
                losses.clear()
                history.append(TrainingEvaluation(step, loss, score, learning_rate))
                on_evaluation(history[-1])
                running = running + 1 if score >= settings.target_accuracy else 0
                if running == settings.patience:
                    break
    trained = {name: weight.detach() for name, weight in weights.items()}
    refuse_diverged_weights(trained.values(), settings.learning_rate)
    return TrainingResult(trained, history, running >= settings.patience)


def differentiate(weights: Weights, batch: Examples, workers: Workers) -> Tensor:
    """The batch's mean cross-entropy; every weight's `grad` is set to its gradient."""

    def of_share(share: Examples) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits = logits_from_pairs(weights, *share.pairs())
        loss = functional.cross_entropy(logits, share.labels, reduction="sum") / len(batch)
        return loss.detach(), torch.autograd.grad(loss, list(weights.values()))

    losses, gradients = zip(*workers.map(of_share, batch), strict=True)
    for weight, *parts in zip(weights.values(), *gradients, strict=True):
        # A gradient may come transposed, which the fused step on a GPU refuses.
        weight.grad = reduce(torch.add, parts).contiguous()
    return reduce(torch.add, losses)


def accuracy(weights: Weights, split: Examples, workers: Workers) -> float:
    """Share of the examples whose largest logit is their sum's."""

    # Whether gradients are kept is each thread's own.
    @torch.no_grad()
    def n_right(share: Examples) -> int:
        return int((logits_from_pairs(weights, *share.pairs()).argmax(-1) == share.labels).sum())

    return sum(workers.map(n_right, split)) / len(split)


def batches_of(split: Examples, batch_size: int | None, seed: int) -> Iterator[Examples]:
    """Batches without end: shuffled anew for every pass, the last incomplete one left out; or the whole split."""
    if batch_size is None or batch_size >= len(split):
        yield from repeat(split)
    else:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(split), generator=generator).to(split.labels.device)
            for chosen in order[: len(split) // batch_size * batch_size].split(batch_size):
                yield Examples(split.tokens[chosen], split.labels[chosen])
