"""Weights of a TransformerLens bridge in one layout, whatever the model calls them and leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.transformer.architecture import Architecture, Weights
from models.transformer.bridge_positions import RotaryPositions
from models.transformer.unsupported import UnsupportedFeature, model_name
from models.weights import CheckpointError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def weights_of(
    bridge: TransformerBridge, architecture: Architecture, rotary: RotaryPositions, scales: list[float]
) -> Weights:
    """Copies with the names and shapes of `architecture.weight_shapes()`.

    Args:
        bridge: where from.
        architecture: what was read off the bridge's configuration and components.
        rotary: by which query and key columns are reordered.
        scales: what each layer divides its attention scores by; deviations from the first are moved into its queries.

    Raises UnsupportedFeature for a weight of a shape that does not belong, CheckpointError for one that is not finite.
    """
    found = {"embed.W_E": embedded_tokens(bridge), **normalisation_weights("ln_final", bridge.ln_final)}
    found |= {"unembed.W_U": bridge.unembed.W_U, "unembed.b_U": bridge.unembed.b_U}
    if architecture.positions == "learned":
        found["pos_embed.W_pos"] = position_embedding(bridge, architecture.n_context)
    for layer, block in enumerate(bridge.blocks):
        prefix = f"blocks.{layer}"
        attention = {
            name: getattr(block.attn, name) for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
        }
        for name in ("W_Q", "b_Q", "W_K", "b_K"):
            if attention[name] is not None:
                attention[name] = rotary.multiplied(rotary.in_halves(attention[name]))
        for name in ("W_Q", "b_Q"):
            if attention[name] is not None and scales[layer] != architecture.attention_scale:
                attention[name] = attention[name] * (architecture.attention_scale / scales[layer])
        found |= {f"{prefix}.attn.{name}": weight for name, weight in attention.items()}
        found |= normalisation_weights(f"{prefix}.ln1", block.ln1)
        if architecture.has_mlp:
            # Blocks of one normalisation give its output to both modules.
            found |= normalisation_weights(f"{prefix}.ln2", block.ln2 if has_part(block, "ln2") else block.ln1)
            names = ("W_in", "W_out", "W_gate", "b_in", "b_out", "b_gate")
            found |= {f"{prefix}.mlp.{name}": getattr(block.mlp, name, None) for name in names}
    return in_layout(found, architecture, model_name(bridge))


def in_layout(found: dict[str, Tensor | None], architecture: Architecture, name: str) -> Weights:
    """Copies of the architecture's weights; gains that are missing are ones, biases are zeros.

    Raises CheckpointError for numbers that are not finite.
    """
    like = found["embed.W_E"]
    assert like is not None
    weights = {}
    for key, shape in architecture.weight_shapes().items():
        weight = found.get(key)
        if weight is None:
            if ".W_" in key:
                raise UnsupportedFeature(name, f"weight {key}, which it lacks,")
            weight = torch.full(shape, 1.0 if key.endswith(".w") else 0.0)
        if tuple(weight.shape) != shape:
            raise UnsupportedFeature(name, f"weight {key} of shape {tuple(weight.shape)} where others have {shape}")
        if not weight.isfinite().all():
            raise CheckpointError(f"{name}: weight {key} holds numbers that are not finite")
        weights[key] = weight.detach().to(device="cpu", dtype=like.dtype).clone(memory_format=torch.contiguous_format)
    return weights


def embedded_tokens(bridge: TransformerBridge) -> Tensor:
    """Every token's embedding as the model computes it, so that a scale is in it."""
    n_tokens = len(bridge.embed.W_E)
    return bridge.embed(torch.arange(n_tokens, device=bridge.embed.W_E.device)[None])[0]


def position_embedding(bridge: TransformerBridge, n_context: int) -> Tensor:
    """Of positions 0, 1, …; some models keep rows of other uses before them."""
    offset = getattr(bridge.pos_embed.original_component, "offset", 0)
    return bridge.pos_embed.W_pos[offset : offset + n_context]


def normalisation_weights(prefix: str, bridged: Any) -> dict[str, Tensor | None]:
    """Gain and bias, None where a normalisation has none."""
    component = bridged.original_component
    gain, bias = getattr(component, "weight", None), getattr(component, "bias", None)
    if gain is not None and bridged.uses_weight_offset:
        gain = 1.0 + gain
    return {f"{prefix}.w": gain, f"{prefix}.b": bias}


def has_part(block: Any, name: str) -> bool:
    """Whether a block has a component of its own by that name."""
    return name in dict(block.named_children())
