"""The architecture of a TransformerLens bridge, read off its configuration, its weights' shapes and its components.

A configuration does not tell everything (nor always the truth: an activation function that a model names in its own way
is reported as ReLU), so components are asked first, and `convert` compares logits in the end.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from torch import Tensor

from models.transformer.activation_functions import name_of_function
from models.transformer.architecture import Architecture
from models.transformer.bridge_normalisations import normalisations_of
from models.transformer.bridge_positions import RotaryPositions, alibi_slopes
from models.transformer.unsupported import UnsupportedFeature, has_part, model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def architecture_of(bridge: TransformerBridge, rotary: RotaryPositions, scales: list[float]) -> Architecture:
    """Raises UnsupportedFeature for what differs between blocks and may not, and for unknown activation functions."""
    name, cfg, blocks = model_name(bridge), bridge.cfg, list(bridge.blocks)
    first = blocks[0]
    has_mlp, normalisations = has_part(first, "mlp"), normalisations_of(bridge)
    n_heads, d_model, d_head = tensor_of(name, first.attn, "W_Q").shape
    n_context = int(cfg.n_ctx)
    return Architecture(
        n_layers=len(blocks),
        d_model=d_model,
        n_heads=n_heads,
        n_key_value_heads=len(tensor_of(name, first.attn, "W_K")),
        d_head=d_head,
        d_mlp=tensor_of(name, first.mlp, "W_in").shape[-1] if has_mlp else 0,
        d_vocab=len(bridge.embed.W_E),
        d_vocab_out=tensor_of(name, bridge.unembed, "W_U").shape[-1],
        n_context=n_context,
        normalisation=normalisations.inputs.name,
        final_normalisation=normalisations.final.name,
        eps=normalisations.eps,
        positions={"standard": "learned"}.get(cfg.positional_embedding_type, cfg.positional_embedding_type),
        rotary_frequencies=rotary.frequencies,
        gated=has_mlp and isinstance(getattr(first.mlp, "W_gate", None), Tensor),
        activation_function=activation_function_of(name, first.mlp, cfg) if has_mlp else "relu",
        parallel=bool(cfg.parallel_attn_mlp),
        attention_scale=scales[0],
        windows=tuple(window_of(block.attn.original_component, cfg, i, n_context) for i, block in enumerate(blocks)),
        slopes=alibi_slopes(bridge),
        output_normalisation=normalisations.outputs.name,
        sum_normalisation=normalisations.sums.name,
        query_key_normalisation=normalisations.queries_keys.name,
        normalises_heads_together=normalisations.together,
        normalises_turned=bool(getattr(cfg, "qk_norm_after_rope", False)),
        clip=clip_of(bridge),
        score_soft_cap=positive(getattr(cfg, "attn_scores_soft_cap", None)),
        logit_soft_cap=positive(getattr(cfg, "output_logits_soft_cap", None)),
    )


def positive(number: float | None) -> float | None:
    """None for the numbers that mean that there is no limit."""
    return float(number) if number is not None and number > 0 else None


def clip_of(bridge: TransformerBridge) -> float | None:
    """What queries, keys and values are limited to."""
    config = getattr(bridge.original_model, "config", None)
    for of in (config, getattr(config, "attn_config", None)):
        if getattr(of, "clip_qkv", None) is not None:
            return positive(of.clip_qkv)  # pyright: ignore[reportOptionalMemberAccess]
    return None


def tensor_of(model: str, component: Any, name: str) -> Tensor:
    """A weight in TransformerLens's layout; UnsupportedFeature where a component has none."""
    try:
        weight = getattr(component, name)
    except (AttributeError, NotImplementedError) as error:
        raise UnsupportedFeature(model, f"{type(component).__name__} without {name}") from error
    if not isinstance(weight, Tensor):
        raise UnsupportedFeature(model, f"{type(component).__name__} without {name}")
    return weight


def attention_scales(bridge: TransformerBridge) -> list[float]:
    """What each layer divides its attention scores by."""
    return [attention_scale_of(block.attn.original_component, bridge.cfg) for block in bridge.blocks]


def attention_scale_of(component: Any, cfg: Any) -> float:
    """By whichever attribute a model keeps it in; the root of the head width where it keeps none."""
    if isinstance(getattr(component, "scaling", None), float):
        return 1.0 / component.scaling
    if isinstance(getattr(component, "inv_norm_factor", None), float):
        return 1.0 / component.inv_norm_factor
    if isinstance(getattr(component, "softmax_scale", None), float):
        return 1.0 / component.softmax_scale
    for key in ("scale", "scale_attn"):
        if isinstance(getattr(component, key, None), float):
            return getattr(component, key)
    return 1.0 if cfg.architecture == "GPTNeoForCausalLM" else sqrt(cfg.d_head)


def window_of(component: Any, cfg: Any, layer: int, n_context: int) -> int | None:
    """How many positions up to its own a query of this layer sees, None where it sees the whole context."""
    config = getattr(component, "config", None)
    layer_types = getattr(config, "layer_types", None)
    if getattr(component, "attention_type", None) in ("local", "global"):
        window = cfg.window_size if component.attention_type == "local" else None
    elif layer_types is not None and layer_types[layer] != "sliding_attention":
        window = None
    else:
        window = getattr(component, "sliding_window", getattr(config, "sliding_window", None))
    return None if window is None or window >= n_context else int(window)


def activation_function_of(model: str, mlp: Any, cfg: Any) -> str:
    """By its values; UnsupportedFeature for one that is not known or not elementwise."""
    component = mlp.original_component
    for key in ("act_fn", "activation_fn", "act", "gelu_impl"):
        if callable(getattr(component, key, None)):
            known = name_of_function(getattr(component, key))
            if known is None:
                raise UnsupportedFeature(model, f"activation function {cfg.act_fn}")
            return known
    raise UnsupportedFeature(model, f"activation function of {type(component).__name__}")
