"""Weights of a TransformerLens bridge in one layout, whatever the model calls them and leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.transformer.architecture import Architecture, Weights
from models.transformer.bridge_normalisations import head_normalisation_weights, normalisation_weights
from models.transformer.bridge_positions import RotaryPositions
from models.transformer.unsupported import UnsupportedFeature, has_part, model_name
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
    factors, (W_U, b_U) = Factors.of(bridge), unembedding(bridge)
    found: dict[str, Tensor | None] = {
        "embed.W_E": embedded_tokens(bridge, factors.embedding),
        "unembed.W_U": factors.logits * W_U,
        "unembed.b_U": None if b_U is None else factors.logits * b_U,
    }
    if has_part(bridge, "ln_final"):
        found |= normalisation_weights("ln_final", bridge.ln_final)
    if architecture.positions == "learned":
        found["pos_embed.W_pos"] = position_embedding(bridge, architecture.n_context)
    for layer, block in enumerate(bridge.blocks):
        prefix, scale = f"blocks.{layer}", architecture.attention_scale / scales[layer]
        found |= attention_weights(f"{prefix}.attn", block.attn, architecture, rotary, layer, scale)
        # Blocks of one normalisation give its output to both modules.
        alike = {"ln1": "ln1", "ln2": "ln2" if has_part(block, "ln2") else "ln1"}
        for name, own in (alike | {"ln1_post": "ln1_post", "ln2_post": "ln2_post"}).items():
            if has_part(block, own):
                found |= normalisation_weights(f"{prefix}.{name}", getattr(block, own))
        if architecture.has_mlp:
            names = ("W_in", "W_out", "W_gate", "b_in", "b_out", "b_gate")
            found |= {f"{prefix}.mlp.{name}": getattr(block.mlp, name, None) for name in names}
        for name in last_weights(architecture):
            weight = found.get(f"{prefix}.{name}")
            found[f"{prefix}.{name}"] = None if weight is None else factors.branches * weight
    return in_layout(found, architecture, model_name(bridge))


def last_weights(architecture: Architecture) -> tuple[str, ...]:
    """What a block's modules end with, which a factor of their outputs goes into."""
    if architecture.output_normalisation != "none":
        return ("ln1_post.w", "ln1_post.b", "ln2_post.w", "ln2_post.b")
    return ("attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out")


@dataclass(frozen=True)
class Factors:
    """What a model multiplies by beside its weights.

    Attributes:
        branches: attention's and the MLP's outputs.
        logits: the logits.
        embedding: the tokens' embedding.
    """

    branches: float = 1.0
    logits: float = 1.0
    embedding: float = 1.0

    @classmethod
    def of(cls, bridge: TransformerBridge) -> Factors:
        """As the model's own configuration has them."""
        config = getattr(bridge.original_model, "config", None)
        return cls(
            branches=float(getattr(config, "residual_multiplier", None) or 1.0),
            logits=float(getattr(config, "logit_scale", None) or 1.0)
            / float(getattr(config, "logits_scaling", None) or 1.0),
            embedding=float(getattr(config, "embedding_multiplier", None) or 1.0),
        )


def attention_weights(
    prefix: str, attn: Any, architecture: Architecture, rotary: RotaryPositions, layer: int, scale: float
) -> dict[str, Tensor | None]:
    """One layer's; queries times `scale`, which goes behind their normalisation where there is one.

    Raises UnsupportedFeature for what is multiplied behind a limit or a normalisation that it cannot be taken through.
    """
    found: dict[str, Tensor | None] = {
        name: getattr(attn, name) for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
    }
    multiplied = {"Q": ("W_Q", "b_Q"), "K": ("W_K", "b_K")}
    if architecture.query_key_normalisation != "none":
        n_heads = {"q_norm": architecture.n_heads, "k_norm": architecture.n_key_value_heads}
        for name, n in n_heads.items():
            found |= head_normalisation_weights(name, getattr(attn, name), n, architecture.d_head)
        multiplied = {"Q": ("q_norm.w", "q_norm.b"), "K": ("k_norm.w", "k_norm.b")}
    in_halves = {"W_Q", "b_Q", "W_K", "b_K", "q_norm.w", "q_norm.b", "k_norm.w", "k_norm.b"}
    factor = rotary.layers[layer].factor if rotary.layers else 1.0
    if (factor, scale) != (1.0, 1.0) and (architecture.clip is not None or architecture.normalises_turned):
        raise UnsupportedFeature(prefix, "scaled queries behind a limit or a turn")
    for name, weight in found.items():
        if weight is not None and name in in_halves and rotary.layers:
            found[name] = rotary.in_halves(weight, layer)
    for name in (*multiplied["Q"], *multiplied["K"]):
        weight = found[name]
        if weight is not None:
            found[name] = rotary.multiplied(weight, layer) * (scale if name in multiplied["Q"] else 1.0)
    return {f"{prefix}.{name}": weight for name, weight in found.items()}


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


def embedded_tokens(bridge: TransformerBridge, factor: float) -> Tensor:
    """Every token's embedding as the model computes it: a scale, a projection and a normalisation are in it."""
    n_tokens = len(bridge.embed.W_E)
    embedded = factor * bridge.embed(torch.arange(n_tokens, device=bridge.embed.W_E.device)[None])[0]
    for name in ("project_in", "embed_ln"):
        if has_part(bridge, name):
            embedded = getattr(bridge, name).original_component(embedded)
    return embedded


def unembedding(bridge: TransformerBridge) -> tuple[Tensor, Tensor | None]:
    """From the final residual stream, a projection in front among it."""
    weight, bias = bridge.unembed.W_U, bridge.unembed.b_U
    if has_part(bridge, "project_out"):
        weight = bridge.project_out.original_component.weight.T @ weight
    return weight, bias


def position_embedding(bridge: TransformerBridge, n_context: int) -> Tensor:
    """Of positions 0, 1, …; some models keep rows of other uses before them."""
    offset = getattr(bridge.pos_embed.original_component, "offset", 0)
    return bridge.pos_embed.W_pos[offset : offset + n_context]
