"""Training a small decoder on text: AdamW on a cosine schedule; an interrupted training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from models.divergence import refuse_divergence
from models.training_state import OnStep, TrainingEvaluation, read_training_state, write_training_state

EVALUATION_BATCH = 64
LARGEST_GRADIENT = 1.0
"""A step's gradient is scaled down to this norm where it is longer."""
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of every parameter, by PyTorch's names."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    The learning rate goes up from zero over the first `warmup_share` of all steps, then down to zero along a cosine.
    Weight decay is on matrices and embeddings alone. Every `evaluate_every` steps, and after the last, the test split
    is evaluated and the state is written; `target_cross_entropy`, in nats per token, is what it should come to.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    betas: tuple[float, float]
    weight_decay: float
    evaluate_every: int
    target_cross_entropy: float

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate after the share `progress` of all steps."""
        if progress < self.warmup_share:
            return self.learning_rate * progress / self.warmup_share
        falling = (progress - self.warmup_share) / (1 - self.warmup_share)
        return self.learning_rate * (1 + math.cos(math.pi * falling)) / 2


def train(
    model: nn.Module,
    settings: TrainingSettings,
    train_split: Int[Tensor, "example position"],
    test_split: Int[Tensor, "held_out position"],
    seed: int,
    state_file: Path,
    on_step: OnStep = lambda step, evaluation: None,
) -> list[TrainingEvaluation]:
    """Train `model`, which maps tokens to logits, in place and where it is. Returns every evaluation.

    What the next step needs is written to `state_file` after each evaluation; if the file is there, training goes on
    from it and ends as it would have without the interruption, as the order of examples follows from seed and step.
    """
    torch.set_flush_denormal(True)
    model.train()
    device = next(model.parameters()).device
    train_split, test_split = train_split.to(device), test_split.to(device)
    optimiser = adamw(model, settings)
    history = read_state(state_file, model, optimiser)
    done = history[-1].step if history else 0
    total, n_finite = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    for step, batch in enumerate(batches(len(train_split), settings.batch_size, seed, done), start=done + 1):
        if step > settings.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate_at(step / (settings.steps + 1))
        loss = next_token_loss(model, train_split[batch.to(device)]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        total += loss.detach()
        n_finite += total.isfinite()
        on_step(step, history[-1] if history else None)
        if step % settings.evaluate_every == 0 or step == settings.steps:
            before = history[-1].step if history else 0
            mean_loss = total.item() / (step - before)
            refuse_divergence(mean_loss, before + int(n_finite) + 1, settings.learning_rate)
            learning_rate = optimiser.param_groups[0]["lr"]
            history.append(TrainingEvaluation(step, mean_loss, cross_entropy(model, test_split), learning_rate))
            write_state(state_file, model, optimiser, history)
            total.zero_()
            n_finite.zero_()
    model.eval()
    return history


def adamw(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """With weight decay on matrices and embeddings, none on biases and gains."""
    parameters = list(model.parameters())
    groups = [
        {"params": [weight for weight in parameters if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in parameters if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def batches(n_examples: int, batch_size: int, seed: int, n_done: int) -> Iterator[Int[Tensor, " batch"]]:
    """Indices of each batch without end, from number `n_done` on; a pass takes all examples in a random order.

    The last incomplete batch of a pass is left out.
    """
    batch_size = min(batch_size, n_examples)
    per_pass = n_examples // batch_size
    number, skipped = divmod(n_done, per_pass)
    while True:
        order = torch.randperm(n_examples, generator=Generator().manual_seed(seed * 100_003 + number))
        yield from order[: per_pass * batch_size].view(per_pass, batch_size)[skipped:]
        number, skipped = number + 1, 0


def next_token_loss(model: nn.Module, tokens: Int[Tensor, "example position"]) -> Float[Tensor, " prediction"]:
    """Cross-entropy of every token but the first of each sequence, in nats."""
    logits = model(tokens)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")


@torch.no_grad()
def cross_entropy(model: nn.Module, split: Int[Tensor, "example position"]) -> float:
    """Mean over all predicted tokens of a split."""
    model.eval()
    total = sum(next_token_loss(model, batch).double().sum().item() for batch in split.split(EVALUATION_BATCH))
    model.train()
    return total / split[:, 1:].numel()


def write_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[TrainingEvaluation]
) -> None:
    """Weights, moments and evaluations so far; the file appears whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter
        tensors |= {f"{moment}/{name}": optimiser.state[parameter][moment] for moment in MOMENTS}
    write_training_state(path, tensors, history)


def read_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[TrainingEvaluation]:
    """Put the state of an interrupted training back; its evaluations so far, none where there is no readable state."""
    found = read_training_state(path, next(model.parameters()).device)
    if found is None:
        return []
    tensors, history = found
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight/{name}"])
        optimiser.state[parameter] = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS}
        optimiser.state[parameter]["step"] = torch.tensor(float(history[-1].step))
    return history
