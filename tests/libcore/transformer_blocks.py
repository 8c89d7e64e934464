"""Random blocks of every kind that a transformer is made of, small enough to differentiate in full. All float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tiny_models import keeping_constant, random
from torch import Generator, Tensor
from torch.nn import functional

from libcore.sections import (
    AttentionBranch,
    BlockSection,
    Branch,
    Elementwise,
    Gated,
    HeadNormalisation,
    Linear,
    Normalisation,
    NormalisedAttention,
    NormalisedPositionwise,
    PositionwiseBranch,
    RescaleBranch,
    Rotary,
    ScaleBranch,
)

WIDTH = 5
"""Of the residual stream; activations have the constant coordinate after it."""
D = WIDTH + 1
LAYER_NORM, RMS_NORM = Normalisation(WIDTH, True, 1e-2), Normalisation(WIDTH, False, 1e-2)
ROTARY = Rotary(torch.tensor([1.0, 0.1], dtype=torch.float64))
SLOPES = torch.tensor([1.0, 0.5, 0.1, -0.3], dtype=torch.float64)
PARTIAL_ROTARY = Rotary(torch.tensor([0.7], dtype=torch.float64))


def attention_branch(
    generator: Generator,
    normalisation: Normalisation | None = None,
    key_value_heads: int = 4,
    biases: bool = True,
    **settings,
) -> AttentionBranch:
    """Four heads of 4 coordinates whose values have 3."""
    W_Q, W_K = random(generator, 4, D, 4), random(generator, key_value_heads, D, 4)
    W_V = random(generator, key_value_heads, D, 3)
    for weight in (W_Q, W_K, W_V):
        weight.mul_(0.5)
        weight[:, -1] *= float(biases)
    W_O = random(generator, 4, 3, D)
    W_O[..., -1] = 0.0
    return AttentionBranch(W_Q, W_K, W_V, W_O, normalisation, **settings)


def head_normalisation(
    generator: Generator, n_heads: int = 4, centred: bool = False, together: bool = False, turned: bool = False
) -> HeadNormalisation:
    """With a gain for each coordinate, and no shift."""
    gain = random(generator, n_heads, 4)
    return HeadNormalisation(gain, torch.zeros_like(gain), centred, together, 1e-2, turned)


def normalised_heads(
    generator: Generator, normalisation: Normalisation | None, key_value_heads: int = 4, **settings
) -> AttentionBranch:
    """Queries and keys normalised, the settings those of their normalisation, or else of the attention."""
    how = {name: settings.pop(name) for name in ("centred", "together", "turned") if name in settings}
    queries, keys = (head_normalisation(generator, n, **how) for n in (4, key_value_heads))
    return attention_branch(generator, normalisation, key_value_heads, queries=queries, keys=keys, **settings)


def mlp_branch(
    generator: Generator, normalisation: Normalisation | None, hidden: Elementwise | Gated | Linear, biases: bool = True
) -> PositionwiseBranch:
    """Seven hidden coordinates."""
    weight_in = random(generator, D, 7 * hidden.pre_activations_per_hidden)
    weight_in[-1] *= float(biases)
    weight_out = random(generator, 7, D)
    weight_out[:, -1] = 0.0
    return PositionwiseBranch(weight_in, weight_out, hidden, normalisation)


def normalised_output(
    generator: Generator, normalisation: Normalisation, branch: PositionwiseBranch, biases: bool = True
) -> NormalisedPositionwise:
    """With a gain for each coordinate."""
    bias, gain = (random(generator, 1, WIDTH)[0] for _ in range(2))
    return NormalisedPositionwise(branch, bias * float(biases), normalisation, gain, D)


def normalised_attention(
    generator: Generator, normalisation: Normalisation, branch: AttentionBranch, biases: bool = True
) -> NormalisedAttention:
    """Likewise of attention."""
    bias, gain = (random(generator, 1, WIDTH)[0] for _ in range(2))
    return NormalisedAttention(branch, bias * float(biases), normalisation, gain, D)


def block(generator: Generator, *branches: Branch, query_positions: tuple[int, ...] | None = None) -> BlockSection:
    """Branches beside a residual stream that is mixed, so that every one of its entries counts."""
    return BlockSection(keeping_constant(random(generator, D, D)), branches, query_positions)


GELU, SILU = Elementwise(functional.gelu), Gated(functional.silu)
BLOCKS: dict[str, Callable[[Generator], BlockSection]] = {
    "attention": lambda g: block(g, attention_branch(g)),
    "attention, LayerNorm": lambda g: block(g, attention_branch(g, LAYER_NORM)),
    "attention, RMSNorm": lambda g: block(g, attention_branch(g, RMS_NORM)),
    "attention, RMSNorm, no biases": lambda g: block(g, attention_branch(g, RMS_NORM, biases=False)),
    "attention, rotary": lambda g: block(g, attention_branch(g, rotary=ROTARY)),
    "attention, partial rotary, LayerNorm": lambda g: block(g, attention_branch(g, LAYER_NORM, rotary=PARTIAL_ROTARY)),
    "attention, grouped queries, rotary, RMSNorm": lambda g: block(
        g, attention_branch(g, RMS_NORM, 2, biases=False, rotary=ROTARY)
    ),
    "attention, window, scale": lambda g: block(g, attention_branch(g, LAYER_NORM, window=2, scale=1.0)),
    "attention, window, rotary": lambda g: block(g, attention_branch(g, RMS_NORM, window=3, rotary=ROTARY)),
    "attention, slopes": lambda g: block(g, attention_branch(g, RMS_NORM, slopes=SLOPES)),
    "attention, slopes, window, no normalisation": lambda g: block(g, attention_branch(g, slopes=SLOPES, window=3)),
    "attention, normalised heads": lambda g: block(g, normalised_heads(g, None)),
    "attention, normalised heads, rotary, RMSNorm": lambda g: block(g, normalised_heads(g, RMS_NORM, 2, rotary=ROTARY)),
    "attention, normalised heads, slopes": lambda g: block(g, normalised_heads(g, RMS_NORM, slopes=SLOPES)),
    "attention, centred heads, partial rotary, LayerNorm": lambda g: block(
        g, normalised_heads(g, LAYER_NORM, 2, centred=True, rotary=PARTIAL_ROTARY)
    ),
    "attention, heads normalised when turned, RMSNorm": lambda g: block(
        g, normalised_heads(g, RMS_NORM, 2, turned=True, rotary=ROTARY)
    ),
    "attention, heads normalised together": lambda g: block(g, normalised_heads(g, None, together=True)),
    "attention, heads normalised together, rotary, RMSNorm": lambda g: block(
        g, normalised_heads(g, RMS_NORM, 2, together=True, rotary=ROTARY)
    ),
    "attention, heads normalised together when turned, LayerNorm": lambda g: block(
        g, normalised_heads(g, LAYER_NORM, 2, together=True, turned=True, rotary=ROTARY)
    ),
    "attention, queries normalised, read at some positions": lambda g: block(
        g,
        attention_branch(g, LAYER_NORM, rotary=ROTARY, queries=head_normalisation(g, together=True)),
        query_positions=(-1, 1),
    ),
    "attention, soft cap": lambda g: block(g, attention_branch(g, None, soft_cap=0.7)),
    "attention, soft cap, rotary, RMSNorm": lambda g: block(
        g, attention_branch(g, RMS_NORM, 2, soft_cap=0.7, rotary=ROTARY)
    ),
    "attention, normalised heads, soft cap, rotary, RMSNorm, window": lambda g: block(
        g, normalised_heads(g, RMS_NORM, 2, soft_cap=0.7, rotary=ROTARY, window=3)
    ),
    "attention, both ways": lambda g: block(g, attention_branch(g, LAYER_NORM, causal=False, rotary=ROTARY)),
    "attention, read at some positions": lambda g: block(
        g, attention_branch(g, LAYER_NORM, rotary=ROTARY), query_positions=(-1, 1)
    ),
    "MLP": lambda g: block(g, mlp_branch(g, None, GELU)),
    "MLP, LayerNorm": lambda g: block(g, mlp_branch(g, LAYER_NORM, GELU)),
    "MLP, LayerNorm, read at some positions": lambda g: block(
        g, mlp_branch(g, LAYER_NORM, GELU), query_positions=(-1, 1)
    ),
    "gated MLP": lambda g: block(g, mlp_branch(g, None, SILU)),
    "gated MLP, RMSNorm": lambda g: block(g, mlp_branch(g, RMS_NORM, SILU, biases=False)),
    "MLP, LayerNorm of its output": lambda g: block(g, normalised_output(g, LAYER_NORM, mlp_branch(g, RMS_NORM, GELU))),
    "gated MLP, RMSNorm of its output": lambda g: block(g, normalised_output(g, RMS_NORM, mlp_branch(g, None, SILU))),
    "gated MLP, RMSNorm of its output, no biases": lambda g: block(
        g, normalised_output(g, RMS_NORM, mlp_branch(g, RMS_NORM, SILU, biases=False), biases=False)
    ),
    "attention, LayerNorm of its output": lambda g: block(g, normalised_attention(g, LAYER_NORM, attention_branch(g))),
    "attention, RMSNorm of its output, rotary": lambda g: block(
        g, normalised_attention(g, RMS_NORM, attention_branch(g, LAYER_NORM, 2, rotary=ROTARY))
    ),
    "attention, RMSNorm of its output, normalised heads, soft cap": lambda g: block(
        g, normalised_attention(g, RMS_NORM, normalised_heads(g, RMS_NORM, 2, soft_cap=0.7, rotary=ROTARY))
    ),
    "attention, RMSNorm of its output, heads normalised together, no biases": lambda g: block(
        g,
        normalised_attention(
            g, RMS_NORM, normalised_heads(g, None, 2, together=True, rotary=ROTARY, biases=False), biases=False
        ),
    ),
    "attention, RMSNorm of its output, read at some positions": lambda g: block(
        g, normalised_attention(g, RMS_NORM, attention_branch(g, RMS_NORM, rotary=ROTARY)), query_positions=(-1, 1)
    ),
    "parallel, RMSNorm of both outputs": lambda g: block(
        g,
        normalised_attention(g, RMS_NORM, attention_branch(g, RMS_NORM, rotary=ROTARY)),
        normalised_output(g, RMS_NORM, mlp_branch(g, RMS_NORM, SILU)),
    ),
    "parallel, RMSNorm of the MLP's output": lambda g: block(
        g, attention_branch(g, RMS_NORM), normalised_output(g, RMS_NORM, mlp_branch(g, RMS_NORM, SILU))
    ),
    "parallel, LayerNorm": lambda g: block(g, attention_branch(g, LAYER_NORM), mlp_branch(g, LAYER_NORM, GELU)),
    "parallel, rotary, gated, RMSNorm": lambda g: block(
        g, attention_branch(g, RMS_NORM, 2, rotary=ROTARY), mlp_branch(g, RMS_NORM, SILU)
    ),
    "unembedding, LayerNorm": lambda g: BlockSection(
        torch.zeros(D, 8, dtype=torch.float64),
        (PositionwiseBranch(random(g, D, WIDTH), random(g, WIDTH, 8), Linear(), LAYER_NORM),),
    ),
    "no branch": block,
    "scale": lambda g: BlockSection(random(g, D, D + 1), (ScaleBranch(LAYER_NORM, WIDTH, D + 1),)),
    "scale of RMSNorm": lambda g: BlockSection(random(g, D, D + 1), (ScaleBranch(RMS_NORM, WIDTH, D + 1),)),
}
"""Sections that read `[residual stream, 1]`."""


def rescaling(generator: Generator, centred: bool) -> BlockSection:
    """Reads `[residual stream, inverse scale, 1]`."""
    branch = RescaleBranch(WIDTH, centred, WIDTH, random(generator, WIDTH, D))
    return BlockSection(random(generator, D + 1, D), (branch,))


def with_scale(activation: Tensor, normalisation: Normalisation) -> Tensor:
    """`[residual stream, inverse scale, 1]`."""
    return torch.cat([activation[..., :-1], normalisation.inverse_scale(activation), activation[..., -1:]], dim=-1)
