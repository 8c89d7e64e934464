"""The one-block transformer for modular addition, with TransformerLens weight names, as a chain of sections.

Only the last position's MLP and logits are ever read, so everything after attention is computed there alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from libcore.chain import Chain
from libcore.constant import beside_constant, carrying_constant, folded, with_constant
from libcore.sections import AffineSection, AttentionSection, ResidualElementwiseSection

NODE_LAYERS = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "output")
N_POSITIONS = 3


@dataclass(frozen=True)
class Architecture:
    """Sizes of the transformer: vocabulary `modulus + 1`, three positions, ReLU, no normalisation."""

    modulus: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every weight's name and shape."""
        vocabulary, d, heads, d_head = self.modulus + 1, self.d_model, self.n_heads, self.d_head
        attention = {f"blocks.0.attn.W_{name}": (heads, d, d_head) for name in "QKV"}
        attention |= {f"blocks.0.attn.b_{name}": (heads, d_head) for name in "QKV"}
        return {
            "embed.W_E": (vocabulary, d),
            "pos_embed.W_pos": (N_POSITIONS, d),
            **attention,
            "blocks.0.attn.W_O": (heads, d_head, d),
            "blocks.0.attn.b_O": (d,),
            "blocks.0.mlp.W_in": (d, self.d_mlp),
            "blocks.0.mlp.b_in": (self.d_mlp,),
            "blocks.0.mlp.W_out": (self.d_mlp, d),
            "blocks.0.mlp.b_out": (d,),
            "unembed.W_U": (d, vocabulary),
            "unembed.b_U": (vocabulary,),
        }


Weights = dict[str, Tensor]


def initial_weights(architecture: Architecture, seed: int) -> dict[str, nn.Parameter]:
    """Gaussian weights of variance one over the width they read from; biases zero. Float32, deterministic by seed."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, nn.Parameter] = {}
    for name, shape in architecture.weight_shapes().items():
        if ".b_" in name:
            weights[name] = nn.Parameter(torch.zeros(shape))
        else:
            # W_E and W_pos write a stream of width d_model; all others read `shape[-2]` numbers (W_O: all heads').
            fan_in = architecture.d_model if "embed.W_E" in name or "W_pos" in name else shape[-2]
            fan_in *= architecture.n_heads if name.endswith("W_O") else 1
            weights[name] = nn.Parameter(torch.randn(shape, generator=generator) / sqrt(fan_in))
    return weights


def logits_from_pairs(
    weights: Weights | dict[str, nn.Parameter], a: Int[Tensor, " example"], b: Int[Tensor, " example"]
) -> Float[Tensor, "example vocabulary"]:
    """Logits at "=" of pairs of numbers, without work that no logit depends on.

    Keys and values at positions 0 and 1 depend on one number each and the query on none, so attention scores and
    values are tables of `p` rows. Adjacent linear maps are multiplied with each other first: `W_O` with `W_in` and
    with `W_U`, `W_out` with `W_U`, so that the residual stream is never computed: three products over the examples
    where there were five.
    """
    w_q, w_k, w_v, w_o = (weights[f"blocks.0.attn.W_{name}"] for name in "QKVO")
    b_q, b_k, b_v, b_o = (weights[f"blocks.0.attn.b_{name}"] for name in "QKVO")
    embedding, position = weights["embed.W_E"], weights["pos_embed.W_pos"]
    equals = embedding[-1] + position[2]

    query = torch.einsum("d,hde->he", equals, w_q) + b_q
    # score(f) = q . (f W_K + b_K) / sqrt(d_head): one vector per head reads it off the residual stream.
    score_weight = torch.einsum("hde,he->dh", w_k, query) / sqrt(w_q.shape[-1])
    score_bias = (query * b_k).sum(-1) / sqrt(w_q.shape[-1])
    read_weight = torch.cat([score_weight, w_v.transpose(0, 1).flatten(1)], dim=1)
    read_bias = torch.cat([score_bias, b_v.flatten()])

    # A row holds every head's score, then every head's value.
    first, second = (
        functional.embedding(number, (embedding[:-1] + position[at]) @ read_weight + read_bias)
        for number, at in ((a, 0), (b, 1))
    )
    third = (equals @ read_weight + read_bias).expand_as(first)
    n_heads = len(w_q)
    pattern = torch.stack([row[:, :n_heads] for row in (first, second, third)]).softmax(0)
    values = [row[:, n_heads:].unflatten(1, w_v.shape[::2]) for row in (first, second, third)]
    mixed = pattern[0, :, :, None] * values[0]
    for share, value in zip(pattern[1:], values[1:], strict=True):
        mixed = mixed.addcmul(share[:, :, None], value)

    return logits_after_attention(weights, mixed.flatten(1), equals + b_o, w_o.flatten(0, 1))


def logits_after_attention(
    weights: Weights | dict[str, nn.Parameter],
    mixed: Float[Tensor, "example value"],
    offset: Float[Tensor, " d"],
    w_o: Float[Tensor, "value d"],
) -> Float[Tensor, "example vocabulary"]:
    """Logits of the residual stream `offset + mixed @ w_o` before the MLP; `mixed` holds every head's mixed value."""
    w_in, b_in, w_out, b_out = (weights[f"blocks.0.mlp.{name}"] for name in ("W_in", "b_in", "W_out", "b_out"))
    w_u, b_u = weights["unembed.W_U"], weights["unembed.b_U"]
    hidden = torch.addmm(offset @ w_in + b_in, mixed, w_o @ w_in).relu_()
    past_mlp = torch.addmm((offset + b_out) @ w_u + b_u, mixed, w_o @ w_u)
    return torch.addmm(past_mlp, hidden, w_out @ w_u)


def chain_of(weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
    """The transformer as sections between residual-stream node layers, biases folded into the constant coordinate."""
    weights = {name: weight.detach().to(device=device, dtype=dtype) for name, weight in weights.items()}
    w_q, w_k, w_v = (folded(weights[f"blocks.0.attn.W_{name}"], weights[f"blocks.0.attn.b_{name}"]) for name in "QKV")
    w_v, w_o = with_output_bias(w_v, weights["blocks.0.attn.W_O"], weights["blocks.0.attn.b_O"])
    attention = AttentionSection(
        residual=torch.eye(w_q.shape[1], dtype=dtype, device=device),
        W_Q=w_q,
        W_K=w_k,
        W_V=w_v,
        W_O=beside_constant(w_o),
        query_positions=(-1,),
    )
    mlp = ResidualElementwiseSection(
        residual=carrying_constant(
            torch.eye(w_q.shape[1] - 1, dtype=dtype, device=device), weights["blocks.0.mlp.b_out"]
        ),
        weight_in=folded(weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"]),
        weight_out=beside_constant(weights["blocks.0.mlp.W_out"]),
        activation_function=functional.relu,
    )
    unembed = AffineSection(folded(weights["unembed.W_U"], weights["unembed.b_U"]))
    embedding, position = weights["embed.W_E"], weights["pos_embed.W_pos"]

    def embed(tokens: Int[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 d"]:
        return with_constant(embedding[tokens] + position)

    return Chain(NODE_LAYERS, (attention, mlp, unembed), embed=embed, last_has_constant=False)


def with_output_bias(
    w_v: Float[Tensor, "head d_in d_head"], w_o: Float[Tensor, "head d_head d"], b_o: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "head d_in d_value"], Float[Tensor, "head d_value d"]]:
    """The output bias as one more value coordinate: every head moves the constant and adds its share of `b_O`.

    The output is the same, since a head's attention pattern sums to one; which position's constant coordinate the bias
    is attributed to is a convention, and this is the published code's (it decides the importance and the edges of the
    constant feature before attention, and nothing else).
    """
    reads_constant = torch.zeros_like(w_v[:, :, :1])
    reads_constant[:, -1] = 1.0
    share = (b_o / len(w_o)).expand(len(w_o), 1, -1)
    return torch.cat([w_v, reads_constant], dim=2), torch.cat([w_o, share], dim=1)
