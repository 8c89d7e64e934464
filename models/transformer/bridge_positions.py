"""Rotary positions of a TransformerLens bridge, whose models keep them in one of three ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.transformer.unsupported import UnsupportedFeature, model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STATIC = {"default", "linear", "llama3", "yarn", "proportional"}
"""Kinds of rotary scaling whose frequencies do not depend on the sequence's length."""


@dataclass(frozen=True)
class RotaryPositions:
    """How queries and keys are turned.

    Attributes:
        frequencies: radians per position of each coordinate pair; none without rotary positions.
        adjacent: whether coordinates `(2 i, 2 i + 1)` are a pair rather than `(i, i + n)`.
        factor: what turned coordinates are multiplied by.
    """

    frequencies: tuple[float, ...] = ()
    adjacent: bool = False
    factor: float = 1.0

    def in_halves(self, weight: Float[Tensor, "*rest d_head"]) -> Float[Tensor, "*rest d_head"]:
        """Columns of a query or key weight in the order in which coordinates `(i, i + n)` are pairs."""
        n = len(self.frequencies)
        if not self.adjacent:
            return weight
        turned, rest = weight[..., : 2 * n], weight[..., 2 * n :]
        return torch.cat([turned[..., 0::2], turned[..., 1::2], rest], dim=-1)

    def multiplied(self, weight: Float[Tensor, "*rest d_head"]) -> Float[Tensor, "*rest d_head"]:
        """Turned columns of a query or key weight with their factor."""
        factors = torch.ones(weight.shape[-1], dtype=weight.dtype, device=weight.device)
        factors[: 2 * len(self.frequencies)] = self.factor
        return weight * factors


def rotary_positions(bridge: TransformerBridge) -> RotaryPositions:
    """From the model's table of frequencies, or the formula that its table of angles was made by.

    Raises UnsupportedFeature for frequencies that change with the sequence or the layer.
    """
    if bridge.cfg.positional_embedding_type != "rotary":
        return RotaryPositions()
    attention = bridge.blocks[0].attn.original_component
    if "rotary_emb" in dict(bridge.named_children()):
        return from_frequencies(bridge, bridge.rotary_emb.original_component)
    if getattr(attention, "rotary", None) is not None:
        return from_native(bridge, attention.rotary)
    if (angles := table_of_angles(bridge)) is not None:
        return from_angles(bridge, angles)
    raise UnsupportedFeature(model_name(bridge), "rotary positions without a table")


def table_of_angles(bridge: TransformerBridge) -> Float[Tensor, "position sines_and_cosines"] | None:
    """GPT-J's and CodeGen's sines and cosines, None in a model without them.

    Some versions of transformers keep the table in every attention layer, others in one module for all of them.
    """
    tables = (getattr(module, "embed_positions", None) for module in bridge.original_model.modules())
    return next((table for table in tables if isinstance(table, Tensor)), None)


def from_angles(bridge: TransformerBridge, angles: Float[Tensor, "position sines_and_cosines"]) -> RotaryPositions:
    """By the formula that the table was made by, as frequencies cannot be read from angles to full precision."""
    frequencies = inverse_frequencies(10000.0, angles.shape[-1])
    sines = (frequencies * (len(angles) - 1)).sin().to(angles)
    if not torch.allclose(sines, angles[-1, : len(sines)], rtol=0, atol=1e-6 * len(angles)):
        raise UnsupportedFeature(model_name(bridge), "rotary positions of another base than 10000")
    return RotaryPositions(tuple(frequencies.tolist()), adjacent=True)


def from_frequencies(bridge: TransformerBridge, component: Any) -> RotaryPositions:
    """A Hugging Face rotary embedding."""
    kind = getattr(component, "rope_type", "default")
    frequencies = getattr(component, "inv_freq", None)
    if not isinstance(frequencies, Tensor) or not isinstance(kind, str):
        raise UnsupportedFeature(model_name(bridge), "rotary positions that differ between layers")
    if kind not in STATIC:
        raise UnsupportedFeature(
            model_name(bridge), f"{kind} rotary positions, which change with the sequence's length,"
        )
    return RotaryPositions(
        tuple(frequencies.double().tolist()),
        adjacent=bool(bridge.cfg.rotary_adjacent_pairs or bridge.cfg.rotary_interleaved_cos_sin),
        factor=float(getattr(component, "attention_scaling", 1.0)),
    )


def from_native(bridge: TransformerBridge, rotary: Any) -> RotaryPositions:
    """TransformerLens's own model: a table of angles, from which frequencies cannot be read to full precision."""
    frequencies = inverse_frequencies(rotary.effective_base, rotary.rotary_dim) / rotary.position_scale
    length = len(rotary.cos_cached)
    cosines = (frequencies * (length - 1)).cos().repeat_interleave(2).to(rotary.cos_cached)
    if not torch.allclose(cosines, rotary.cos_cached[-1], rtol=0, atol=1e-6 * length):
        raise UnsupportedFeature(model_name(bridge), "rotary scaling other than linear of a native model")
    return RotaryPositions(tuple(frequencies.tolist()), adjacent=True)


def inverse_frequencies(base: float, width: int) -> Float[Tensor, " pair"]:
    """`base^(-2 i / width)`, rounded as the models round it, which compute it in float32."""
    return (1.0 / (base ** (torch.arange(0, width, 2).float() / width))).double()
