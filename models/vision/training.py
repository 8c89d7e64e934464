"""Training image classifiers: SGD with Nesterov momentum on a one-cycle schedule; an interrupted training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional

from models.divergence import refuse_divergence
from models.training_state import OnStep, TrainingEvaluation, read_training_state, write_training_state
from models.vision.images import LabelledImages

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    The learning rate goes up from a tenth to `learning_rate` over the first `warmup_share` of all steps, then down to
    zero along a cosine. `crop` is by how many pixels images are shifted at most; `flip` mirrors half of them.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    flip: bool
    crop: int

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate after the share `progress` of all steps."""
        if progress < self.warmup_share:
            return self.learning_rate * (0.1 + 0.9 * progress / self.warmup_share)
        falling = (progress - self.warmup_share) / (1 - self.warmup_share)
        return self.learning_rate * (1 + math.cos(math.pi * falling)) / 2


def train(
    model: nn.Module,
    settings: TrainingSettings,
    train_split: LabelledImages,
    test_split: LabelledImages,
    seed: int,
    device: torch.device,
    state_file: Path,
    on_step: OnStep = lambda step, evaluation: None,
) -> list[TrainingEvaluation]:
    """Train `model` in place, in float32. Returns an evaluation for every epoch.

    After each epoch all that the next one needs is written to `state_file`; if the file is there, training goes on from
    it and ends as it would have without the interruption, as an epoch's random numbers follow from seed and number.
    """
    torch.set_flush_denormal(True)
    model.to(device).train()
    train_split, test_split = train_split.to(device), test_split.to(device)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    history = read_state(state_file, model, optimiser)
    for epoch in range(len(history), settings.epochs):
        step, loss = train_epoch(model, optimiser, settings, train_split, epoch, seed, history, on_step)
        learning_rate = optimiser.param_groups[0]["lr"]
        history.append(TrainingEvaluation(step, loss, accuracy(model, test_split), learning_rate))
        write_state(state_file, model, optimiser, history)
    model.eval()
    return history


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    settings: TrainingSettings,
    split: LabelledImages,
    epoch: int,
    seed: int,
    history: list[TrainingEvaluation],
    on_step: OnStep,
) -> tuple[int, float]:
    """One pass over the images in random order, the last incomplete batch left out. Steps done and mean loss."""
    generator = Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(split), generator=generator).to(split.labels.device)
    batch_size = min(settings.batch_size, len(split))
    n_steps = len(split) // batch_size
    total = torch.zeros((), device=split.labels.device)
    n_finite = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    model.train()
    for step in range(n_steps):
        batch = order[step * batch_size : (step + 1) * batch_size]
        pixels = augmented(split.images[batch], settings.flip, settings.crop, generator).float() / 255
        loss = functional.cross_entropy(model(pixels), split.labels[batch], label_smoothing=settings.label_smoothing)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate_at((epoch + step / n_steps) / settings.epochs)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.detach()
        n_finite += total.isfinite()
        on_step(epoch * n_steps + step + 1, history[-1] if history else None)
    refuse_divergence(total.item(), epoch * n_steps + int(n_finite) + 1, settings.learning_rate)
    return (epoch + 1) * n_steps, total.item() / n_steps


def augmented(
    images: UInt8[Tensor, "batch channel height width"], flip: bool, crop: int, generator: Generator
) -> UInt8[Tensor, "batch channel height width"]:
    """Half of the images mirrored, each shifted by up to `crop` pixels; beyond the border is the image's reflection."""
    n, _, height, width = images.shape
    columns = torch.arange(width).expand(n, width)
    rows = torch.arange(height).expand(n, height)
    if crop:
        shift = torch.randint(-crop, crop + 1, (2, n, 1), generator=generator)
        rows, columns = reflected(rows + shift[0], height), reflected(columns + shift[1], width)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1).to(images.device)
    return images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def reflected(index: Tensor, size: int) -> Tensor:
    """Positions outside `0 … size - 1` mirrored back in, by less than a whole image."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


@torch.no_grad()
def accuracy(model: nn.Module, split: LabelledImages) -> float:
    """Share of images whose largest logit is their class's."""
    model.eval()
    correct = sum(
        int((model(images.float() / 255).argmax(1) == labels).sum())
        for images, labels in zip(
            split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH), strict=True
        )
    )
    return correct / len(split)


def write_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[TrainingEvaluation]
) -> None:
    """Weights, momenta and evaluations so far; the file appears whole or not at all."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    momenta = zip(model.named_parameters(), optimiser.param_groups[0]["params"], strict=True)
    for (name, _), parameter in momenta:
        if (momentum := optimiser.state[parameter].get("momentum_buffer")) is not None:
            tensors[f"momentum/{name}"] = momentum
    write_training_state(path, tensors, history)


def read_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[TrainingEvaluation]:
    """Put the state of an interrupted training back; its evaluations so far, none where there is no readable state."""
    found = read_training_state(path, next(model.parameters()).device)
    if found is None:
        return []
    tensors, history = found
    model.load_state_dict({name: tensors[f"model/{name}"] for name in model.state_dict()})
    for name, parameter in model.named_parameters():
        if f"momentum/{name}" in tensors:
            optimiser.state[parameter]["momentum_buffer"] = tensors[f"momentum/{name}"]
    return history
