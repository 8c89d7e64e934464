"""Modular addition: tokens `[a, b, =]`, label `(a + b) mod p`, all `p * p` pairs split at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Inputs and their labels."""

    tokens: Int[Tensor, "example 3"]
    labels: Int[Tensor, " example"]

    def __len__(self) -> int:
        return len(self.labels)

    def pairs(self) -> tuple[Int[Tensor, " example"], Int[Tensor, " example"]]:
        """The two numbers, each contiguous."""
        return self.tokens[:, 0].contiguous(), self.tokens[:, 1].contiguous()

    def to(self, device: torch.device) -> Examples:
        """A copy on another device."""
        return Examples(self.tokens.to(device), self.labels.to(device))


def all_pairs(modulus: int) -> Examples:
    """All pairs `(a, b)` in row-major order; the token `modulus` stands for "="."""
    numbers = torch.arange(modulus)
    a, b = numbers.repeat_interleave(modulus), numbers.repeat(modulus)
    return Examples(torch.stack([a, b, torch.full_like(a, modulus)], dim=1), (a + b) % modulus)


def split_pairs(modulus: int, train_fraction: float, split_seed: int) -> tuple[Examples, Examples]:
    """Training and test split: the first `int(train_fraction * p * p)` of a seeded permutation are for training.

    With the defaults (113, 0.3, 0) these are the paper's 3,830 and 8,939 examples.
    """
    pairs = all_pairs(modulus)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(split_seed))
    n_train = int(train_fraction * modulus * modulus)
    train, test = order[:n_train], order[n_train:]
    return Examples(pairs.tokens[train], pairs.labels[train]), Examples(pairs.tokens[test], pairs.labels[test])
