"""Networks as somebody writes them, without a thought of sections: small, float64, with random biases everywhere."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from libcore.constant import beside_constant, carrying_constant, folded, with_constant
from libcore.sections import (
    AttentionBranch,
    BlockSection,
    Elementwise,
    Linear,
    Normalisation,
    PositionwiseBranch,
    Section,
)

WIDTH, HEADS, TOKENS, POSITIONS = 6, 2, 5, 4
EPS = 1e-2


class Attention(nn.Module):
    """Written by hand; `torch.fx` cannot trace it, because the mask is made for the number of positions."""

    def __init__(self, causal: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        batch, positions, _ = x.shape
        q, k, v = (
            linear(x).view(batch, positions, HEADS, -1).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-2, -1) / sqrt(q.shape[-1])
        if self.causal:
            mask = torch.full((positions, positions), -torch.inf, dtype=x.dtype).triu(1)
            scores = scores + mask
        mixed = scores.softmax(dim=-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, positions, WIDTH))


class EinsumAttention(nn.Module):
    """The same, in other operations, with a mask that is a buffer; `torch.fx` traces it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.register_buffer("mask", torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).tril())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (linear(x).unflatten(-1, (HEADS, -1)) for linear in (self.query, self.key, self.value))
        scores = torch.einsum("bthd,bshd->bhts", q, k) * (WIDTH / HEADS) ** -0.5
        scores = torch.where(self.mask, scores, -1e9)
        return self.out(torch.einsum("bhts,bshd->bthd", torch.softmax(scores, -1), v).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm."""

    def __init__(self, norm: type[nn.Module], attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(WIDTH, eps=EPS), norm(WIDTH, eps=EPS)
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 9), nn.GELU(), nn.Dropout(0.5), nn.Linear(9, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Tokens and positions, blocks, a normalisation, logits."""

    def __init__(self, norm: type[nn.Module] = nn.LayerNorm, attention: type[nn.Module] = Attention) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        self.positions = nn.Parameter(torch.zeros(POSITIONS, WIDTH))
        self.blocks = nn.ModuleList([TransformerBlock(norm, attention())])
        self.norm = norm(WIDTH, eps=EPS)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def with_random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, running moments too; still in training mode."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.6
                tensor.copy_(drawn.abs() + 0.5 if "running_var" in name else drawn)
    return module


def read_by_hand(linear: nn.Linear, norm: nn.Module) -> Tensor:
    """`[[W], [b]]` with the gain and the bias of the normalisation in front."""
    gain, shift = norm.weight.double(), getattr(norm, "bias", None)
    weight, bias = linear.weight.double().T, linear.bias.double()
    bias = bias if shift is None else bias + shift.double() @ weight
    return folded(gain[:, None] * weight, bias).detach()


def sections_by_hand(model: Transformer) -> tuple[Section, ...]:
    """From the residual stream before attention, the MLP and the final normalisation to the logits.

    Every bias reads the constant coordinate of its own position.
    """
    block = model.blocks[0]
    centred = isinstance(model.norm, nn.LayerNorm)
    attention, mlp = block.attention, block.mlp
    normalisation = Normalisation(WIDTH, centred, EPS)
    queries, keys, values = (
        read_by_hand(linear, block.norm1).unflatten(1, (HEADS, -1)).transpose(0, 1).contiguous()
        for linear in (attention.query, attention.key, attention.value)
    )
    out = beside_constant(attention.out.weight.detach().T.unflatten(0, (HEADS, -1)))
    eye = torch.eye(WIDTH, dtype=torch.float64)
    return (
        BlockSection(
            carrying_constant(eye, attention.out.bias.detach()),
            (AttentionBranch(queries, keys, values, out, normalisation),),
        ),
        BlockSection(
            carrying_constant(eye, mlp[3].bias.detach()),
            (
                PositionwiseBranch(
                    read_by_hand(mlp[0], block.norm2),
                    beside_constant(mlp[3].weight.detach().T),
                    Elementwise(torch.nn.functional.gelu),
                    normalisation,
                ),
            ),
        ),
        BlockSection(
            torch.zeros(WIDTH + 1, TOKENS, dtype=torch.float64),
            (
                PositionwiseBranch(
                    read_by_hand(model.head, model.norm), torch.eye(TOKENS).double(), Linear(), normalisation
                ),
            ),
        ),
    )


def embedded(model: Transformer, tokens: Tensor) -> Tensor:
    """`[batch, position, WIDTH + 1]`."""
    return with_constant(model.embedding(tokens) + model.positions[: tokens.shape[1]]).detach()
