"""The small decoder that is trained here: its sizes, and itself as a TransformerLens model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from models.transformer.architecture import Architecture

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EPS = 1e-5


@dataclass(frozen=True)
class Sizes:
    """Sizes of the small decoder; all else is fixed: LayerNorm, GELU, learned positions, biases, no dropout."""

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_context: int

    def architecture(self) -> Architecture:
        """As the chain of sections is made from, which takes no TransformerLens."""
        return Architecture(
            **asdict(self),
            n_key_value_heads=self.n_heads,
            d_vocab_out=self.d_vocab,
            normalisation="layer_norm",
            final_normalisation="layer_norm",
            eps=EPS,
            positions="learned",
            rotary_frequencies=(),
            gated=False,
            activation_function="gelu",
            parallel=False,
            attention_scale=math.sqrt(self.d_head),
            windows=(None,) * self.n_layers,
        )


def initial_model(sizes: Sizes, seed: int, device: torch.device) -> TransformerBridge:
    """The decoder as TransformerLens builds and initialises it, in float32; importing that takes seconds."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import boot_native

    named_alike = asdict(sizes)
    n_context = named_alike.pop("n_context")
    return boot_native(
        TransformerBridgeConfig(
            **named_alike,
            n_ctx=n_context,
            act_fn="gelu",
            normalization_type="LN",
            eps=EPS,
            positional_embedding_type="standard",
            seed=seed,
        ),
        device=device,
    )
