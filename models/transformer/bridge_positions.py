"""Positions that attention knows of a TransformerLens bridge: rotary ones, kept in one of several ways, and ALiBi."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.transformer.unsupported import UnsupportedFeature, has_part, model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STATIC = {"default", "linear", "llama3", "yarn", "proportional"}
"""Kinds of rotary scaling whose frequencies do not depend on the sequence's length."""


@dataclass(frozen=True)
class Turning:
    """How one layer's queries and keys are turned.

    Attributes:
        frequencies: radians per position of each coordinate pair; none where positions do not turn.
        factor: what turned coordinates are multiplied by.
    """

    frequencies: tuple[float, ...] = ()
    factor: float = 1.0


@dataclass(frozen=True)
class RotaryPositions:
    """How queries and keys are turned.

    Attributes:
        layers: each layer's; empty without rotary positions.
        adjacent: whether coordinates `(2 i, 2 i + 1)` are a pair rather than `(i, i + n)`.
    """

    layers: tuple[Turning, ...] = ()
    adjacent: bool = False

    @property
    def frequencies(self) -> tuple[tuple[float, ...], ...]:
        """By layer."""
        return tuple(of_layer.frequencies for of_layer in self.layers)

    def in_halves(self, weight: Float[Tensor, "*rest d_head"], layer: int) -> Float[Tensor, "*rest d_head"]:
        """Columns of a query or key weight in the order in which coordinates `(i, i + n)` are pairs."""
        if not self.adjacent:
            return weight
        n = len(self.layers[layer].frequencies)
        turned, rest = weight[..., : 2 * n], weight[..., 2 * n :]
        return torch.cat([turned[..., 0::2], turned[..., 1::2], rest], dim=-1)

    def multiplied(self, weight: Float[Tensor, "*rest d_head"], layer: int) -> Float[Tensor, "*rest d_head"]:
        """Turned columns of a query or key weight with their factor."""
        if not self.layers:
            return weight
        factors = torch.ones(weight.shape[-1], dtype=weight.dtype, device=weight.device)
        factors[: 2 * len(self.layers[layer].frequencies)] = self.layers[layer].factor
        return weight * factors


def rotary_positions(bridge: TransformerBridge) -> RotaryPositions:
    """From the model's table of frequencies, or the formula that its table of angles was made by.

    Raises UnsupportedFeature for frequencies that change with the sequence.
    """
    if bridge.cfg.positional_embedding_type != "rotary":
        return RotaryPositions()
    attention = bridge.blocks[0].attn.original_component
    if has_part(bridge, "rotary_emb"):
        return from_frequencies(bridge, bridge.rotary_emb.original_component)
    if getattr(attention, "rotary", None) is not None:
        return in_every_layer(bridge, from_native(bridge, attention.rotary), adjacent=True)
    if (angles := table_of_angles(bridge)) is not None:
        return in_every_layer(bridge, from_angles(bridge, angles), adjacent=True)
    raise UnsupportedFeature(model_name(bridge), "rotary positions without a table")


def in_every_layer(bridge: TransformerBridge, turning: Turning, adjacent: bool) -> RotaryPositions:
    """The same in all layers."""
    return RotaryPositions((turning,) * len(bridge.blocks), adjacent)


def table_of_angles(bridge: TransformerBridge) -> Float[Tensor, "position sines_and_cosines"] | None:
    """GPT-J's and CodeGen's sines and cosines, None in a model without them.

    Some versions of transformers keep the table in every attention layer, others in one module for all of them.
    """
    tables = (getattr(module, "embed_positions", None) for module in bridge.original_model.modules())
    return next((table for table in tables if isinstance(table, Tensor)), None)


def from_angles(bridge: TransformerBridge, angles: Float[Tensor, "position sines_and_cosines"]) -> Turning:
    """By the formula that the table was made by, as frequencies cannot be read from angles to full precision."""
    frequencies = inverse_frequencies(10000.0, angles.shape[-1])
    sines = (frequencies * (len(angles) - 1)).sin().to(angles)
    if not torch.allclose(sines, angles[-1, : len(sines)], rtol=0, atol=1e-6 * len(angles)):
        raise UnsupportedFeature(model_name(bridge), "rotary positions of another base than 10000")
    return Turning(tuple(frequencies.tolist()))


def from_frequencies(bridge: TransformerBridge, component: Any) -> RotaryPositions:
    """A Hugging Face rotary embedding: one for all layers, or one for each type of layer."""
    blocks, layer_types = list(bridge.blocks), getattr(getattr(component, "config", None), "layer_types", None)
    turning = []
    for layer, block in enumerate(blocks):
        by_type = f"{layer_types[layer]}_" if layer_types and not hasattr(component, "inv_freq") else ""
        turns = is_turned(block.attn.original_component)
        turning.append(from_table(bridge, component, by_type) if turns else Turning())
    adjacent = bool(bridge.cfg.rotary_adjacent_pairs or bridge.cfg.rotary_interleaved_cos_sin)
    return RotaryPositions(tuple(turning), adjacent)


def from_table(bridge: TransformerBridge, component: Any, prefix: str) -> Turning:
    """Of the layers whose frequencies have this prefix in a rotary embedding."""
    kind = getattr(component, "rope_type", "default")
    if isinstance(kind, dict):
        kind = kind.get(prefix.removesuffix("_"))
    frequencies = getattr(component, f"{prefix}inv_freq", None)
    if not isinstance(frequencies, Tensor) or not isinstance(kind, str):
        raise UnsupportedFeature(model_name(bridge), "rotary positions without a table of frequencies")
    if kind not in STATIC:
        raise UnsupportedFeature(
            model_name(bridge), f"{kind} rotary positions, which change with the sequence's length,"
        )
    factor = float(getattr(component, f"{prefix}attention_scaling", 1.0))
    return Turning(tuple(frequencies.double().tolist()), factor)


def is_turned(attention: Any) -> bool:
    """Whether positions turn this layer's queries and keys: some models leave layers without positions."""
    use_rope = getattr(attention, "use_rope", None)
    if use_rope is not None:
        return bool(use_rope)
    name, window = type(attention).__name__, getattr(attention, "sliding_window", None)
    if name == "Cohere2Attention":
        return window is not None
    return name != "Exaone4Attention" or window is None or bool(attention.is_sliding)


def from_native(bridge: TransformerBridge, rotary: Any) -> Turning:
    """TransformerLens's own model: a table of angles, from which frequencies cannot be read to full precision."""
    frequencies = inverse_frequencies(rotary.effective_base, rotary.rotary_dim) / rotary.position_scale
    length = len(rotary.cos_cached)
    cosines = (frequencies * (length - 1)).cos().repeat_interleave(2).to(rotary.cos_cached)
    if not torch.allclose(cosines, rotary.cos_cached[-1], rtol=0, atol=1e-6 * length):
        raise UnsupportedFeature(model_name(bridge), "rotary scaling other than linear of a native model")
    return Turning(tuple(frequencies.tolist()))


def alibi_slopes(bridge: TransformerBridge) -> tuple[float, ...]:
    """Of every head, by the formula that the models have in common; empty without ALiBi.

    Falcon adds them before scores are scaled.
    """
    if bridge.cfg.positional_embedding_type != "alibi":
        return ()
    attention, n_heads = bridge.blocks[0].attn.original_component, int(bridge.cfg.n_heads)
    largest = float(getattr(getattr(bridge.original_model, "config", None), "alibi_bias_max", 8))
    factor = attention.inv_norm_factor if type(attention).__name__ == "FalconAttention" else 1.0
    return tuple(factor * slope for slope in slopes_of(n_heads, largest))


def slopes_of(n_heads: int, largest: float) -> list[float]:
    """`2^(-largest i / n)` for `n` heads, a power of two; else every second of the next power's, then others."""
    n = 2 ** ceil(log2(n_heads))
    slopes = [2.0 ** (-largest * i / n) for i in range(1, n + 1)]
    return slopes if n == n_heads else [*slopes[1::2], *slopes[::2]][:n_heads]


def inverse_frequencies(base: float, width: int) -> Float[Tensor, " pair"]:
    """`base^(-2 i / width)`, rounded as the models round it, which compute it in float32."""
    return (1.0 / (base ** (torch.arange(0, width, 2).float() / width))).double()
