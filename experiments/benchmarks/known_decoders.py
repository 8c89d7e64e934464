"""Decoders by their published sizes alone: chains of shapes, for what stages would take. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from libcore.costs.shapes import ChainShapes
from libcore.sections import (
    AttentionBranch,
    BlockSection,
    Elementwise,
    Gated,
    Linear,
    Normalisation,
    PositionwiseBranch,
    Rotary,
    Section,
)


@dataclass(frozen=True)
class Decoder:
    """Sizes.

    Attributes:
        d: width of the residual stream.
        heads, key_value_heads, d_head, d_mlp: of a block.
        turned: coordinate pairs of a head that positions turn; 0 for learned positions.
        gated: the MLP; without, it has biases, as attention has, and LayerNorm is in front.
        parallel: attention and MLP read the same residual stream.
    """

    name: str
    blocks: int
    d: int
    heads: int
    key_value_heads: int
    d_head: int
    d_mlp: int
    vocabulary: int
    turned: int
    gated: bool
    parallel: bool = False

    def shapes(self, positions: int) -> ChainShapes:
        """Between residual streams, of sequences of so many tokens; blocks are all the same two sections, or one."""
        attention, mlp = self.attention(), self.mlp()
        residual = torch.eye(self.d + 1)
        block: tuple[Section, ...] = (BlockSection(residual, (attention,)), BlockSection(residual, (mlp,)))
        if self.parallel:
            block = (BlockSection(residual, (attention, mlp)),)
        sections = self.blocks * block
        activation = torch.zeros(1, 1, 1).expand(1, positions, self.d + 1)
        return ChainShapes(sections, (activation,) * (len(sections) + 1), self.unembedding())

    def attention(self) -> AttentionBranch:
        """Of any block."""
        W_Q = self.weight(self.heads, self.d + 1, self.d_head)
        W_K = W_V = self.weight(self.key_value_heads, self.d + 1, self.d_head)
        writes = self.weight(self.heads, self.d_head, self.d + 1)
        rotary = Rotary(torch.ones(self.turned)) if self.turned else None
        return AttentionBranch(W_Q, W_K, W_V, writes, self.normalisation(), rotary=rotary)

    def mlp(self) -> PositionwiseBranch:
        """Of any block."""
        hidden = Gated(functional.silu) if self.gated else Elementwise(functional.gelu)
        weight_in = self.weight(self.d + 1, self.d_mlp * hidden.pre_activations_per_hidden)
        return PositionwiseBranch(weight_in, self.weight(self.d_mlp, self.d + 1), hidden, self.normalisation())

    def unembedding(self) -> Section:
        """To logits."""
        linear = PositionwiseBranch(
            torch.eye(self.d + 1, self.d), self.weight(self.d, self.vocabulary), Linear(), self.normalisation()
        )
        return BlockSection(torch.zeros(1, 1).expand(self.d + 1, self.vocabulary), (linear,))

    def normalisation(self) -> Normalisation:
        """In front of everything."""
        return Normalisation(self.d, not self.gated, 1e-5)

    def weight(self, *shape: int) -> Tensor:
        """Of a number for all entries, so that it takes no memory; zero where there are no biases."""
        return torch.full((1,) * len(shape), float(not self.gated)).expand(shape)


DECODERS = (
    Decoder("SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, 32, gated=True),
    Decoder("GPT-2 small", 12, 768, 12, 12, 64, 3072, 50257, 0, gated=False),
    Decoder("Pythia-1.4B", 24, 2048, 16, 16, 128, 8192, 50304, 16, gated=False, parallel=True),
    Decoder("Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256, 64, gated=True),
)
