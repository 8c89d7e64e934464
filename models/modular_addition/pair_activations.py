"""Activations on all pairs of numbers, which features are named after and mapped over: one pass serves both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.chain import Chain
from libcore.parallel import in_threads
from models.modular_addition.data import all_pairs

PAIRS_AT_ONCE = 512
"""All of them at once take 0.2 GB, and more time than in chunks that stay in cache."""


class PairActivations:
    """What a chain's node layers hold on all `modulus * modulus` pairs, at the positions where that varies."""

    def __init__(self, modulus: int, device: torch.device) -> None:
        self.modulus = modulus
        self.device = device
        self._held: tuple[Chain, list[Tensor]] | None = None

    @torch.no_grad()
    def of(self, chain: Chain) -> list[Float[Tensor, "batch position d"]]:
        """By node layer; held for whoever asks next, until taken."""
        if self._held is None or self._held[0] is not chain:
            tokens = all_pairs(self.modulus).tokens.to(self.device)
            self._held = chain, [varying_positions(activation) for activation in activations_on(tokens, chain)]
        return self._held[1]

    def taken(self, chain: Chain) -> list[Float[Tensor, "batch position d"]]:
        """The same, for whoever asks last: the list is not held any more."""
        activations = self.of(chain)
        self._held = None
        return activations


def activations_on(tokens: Int[Tensor, "batch position"], chain: Chain) -> Iterator[Float[Tensor, "batch position d"]]:
    """By node layer, computed chunk by chunk; each is let go of when the next one is asked for."""
    held = [part.new_empty(len(tokens), *part.shape[1:]) for part in chain.activations(tokens[:1])]

    def compute(start: int, check: Callable[[], None]) -> None:
        check()
        stop = min(start + PAIRS_AT_ONCE, len(tokens))
        with torch.no_grad():
            for whole, part in zip(held, chain.activations(tokens[start:stop]), strict=True):
                whole[start:stop] = part

    in_threads(compute, range(0, len(tokens), PAIRS_AT_ONCE), tokens.is_cuda)
    while held:
        yield held.pop(0)


def varying_positions(activation: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch varying d"]:
    """Without positions where the activation is the same on all inputs, as at "=" before attention; at least one."""
    varies = (activation != activation[:1]).any(-1).any(0)
    if varies.all():
        return activation
    return activation[:, varies] if varies.any() else activation[:, :1]
