"""Activations on all pairs of numbers, which features are named after and mapped over: one pass serves both."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.chain import Chain
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
            by_layer = zip(*(list(chain.activations(chunk)) for chunk in tokens.split(PAIRS_AT_ONCE)), strict=True)
            parts = [list(of_layer) for of_layer in by_layer]
            del by_layer
            held: list[Tensor] = []
            while parts:  # a node layer's parts are let go of when they are put together
                held.append(varying_positions(torch.cat(parts.pop(0))))
            self._held = chain, held
        return self._held[1]

    def taken(self, chain: Chain) -> list[Float[Tensor, "batch position d"]]:
        """The same, for whoever asks last: the list is not held any more."""
        activations = self.of(chain)
        self._held = None
        return activations


def varying_positions(activation: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch varying d"]:
    """Without positions where the activation is the same on all inputs, as at "=" before attention; at least one."""
    varies = (activation != activation[:1]).any(-1).any(0)
    if varies.all():
        return activation
    return activation[:, varies] if varies.any() else activation[:, :1]
