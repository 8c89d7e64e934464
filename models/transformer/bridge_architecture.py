"""The architecture of a TransformerLens bridge, read off its configuration, its weights' shapes and its components.

A configuration does not tell everything (nor always the truth: an activation function that a model names in its own way
is reported as ReLU), so components are asked first, and `convert` compares logits in the end.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from models.transformer.activation_functions import name_of_function
from models.transformer.architecture import Architecture
from models.transformer.bridge_positions import RotaryPositions
from models.transformer.bridge_weights import has_part
from models.transformer.unsupported import UnsupportedFeature, model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def architecture_of(bridge: TransformerBridge, rotary: RotaryPositions, scales: list[float]) -> Architecture:
    """Raises UnsupportedFeature for what differs between blocks and may not, and for unknown activation functions."""
    name, cfg, blocks = model_name(bridge), bridge.cfg, list(bridge.blocks)
    first = blocks[0]
    has_mlp = has_part(first, "mlp")
    normalisations = [
        normalisation_of(getattr(b, key), cfg) for b in blocks for key in ("ln1", "ln2") if has_part(b, key)
    ]
    if len(set(normalisations)) > 1:
        raise UnsupportedFeature(name, "normalisation that differs between blocks")
    (normalisation, eps), (final, final_eps) = normalisations[0], normalisation_of(bridge.ln_final, cfg)
    if "none" not in (normalisation, final) and eps != final_eps:
        raise UnsupportedFeature(name, "final normalisation with another eps")
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
        normalisation=normalisation,
        final_normalisation=final,
        eps=eps if normalisation != "none" else final_eps,
        positions={"standard": "learned", "rotary": "rotary"}[cfg.positional_embedding_type],
        rotary_frequencies=rotary.frequencies,
        gated=has_mlp and isinstance(getattr(first.mlp, "W_gate", None), Tensor),
        activation_function=activation_function_of(name, first.mlp, cfg) if has_mlp else "relu",
        parallel=bool(cfg.parallel_attn_mlp),
        attention_scale=scales[0],
        windows=tuple(window_of(block.attn.original_component, cfg, i, n_context) for i, block in enumerate(blocks)),
    )


def tensor_of(model: str, component: Any, name: str) -> Tensor:
    """A weight in TransformerLens's layout; UnsupportedFeature where a component has none."""
    try:
        weight = getattr(component, name)
    except (AttributeError, NotImplementedError) as error:
        raise UnsupportedFeature(model, f"{type(component).__name__} without {name}") from error
    if not isinstance(weight, Tensor):
        raise UnsupportedFeature(model, f"{type(component).__name__} without {name}")
    return weight


def normalisation_of(bridged: Any, cfg: Any) -> tuple[str, float]:
    """Kind and `eps` of a normalisation."""
    component = bridged.original_component
    if isinstance(component, nn.Identity):
        return "none", 0.0
    eps = next((getattr(component, key) for key in ("eps", "variance_epsilon") if hasattr(component, key)), cfg.eps)
    return ("rms_norm" if bridged.uses_rms_norm else "layer_norm"), float(eps)


def attention_scales(bridge: TransformerBridge) -> list[float]:
    """What each layer divides its attention scores by."""
    return [attention_scale_of(block.attn.original_component, bridge.cfg) for block in bridge.blocks]


def attention_scale_of(component: Any, cfg: Any) -> float:
    """By whichever attribute a model keeps it in; the root of the head width where it keeps none."""
    if isinstance(getattr(component, "scaling", None), float):
        return 1.0 / component.scaling
    for key in ("scale", "scale_attn"):
        if isinstance(getattr(component, key, None), float):
            return getattr(component, key)
    return 1.0 if cfg.architecture == "GPTNeoForCausalLM" else sqrt(cfg.d_head)


def window_of(component: Any, cfg: Any, layer: int, n_context: int) -> int | None:
    """How many positions up to its own a query of this layer sees, None where it sees the whole context."""
    config = getattr(component, "config", None)
    layer_types = getattr(config, "layer_types", None)
    if hasattr(component, "attention_type"):
        window = cfg.window_size if component.attention_type == "local" else None
    elif layer_types is not None and layer_types[layer] != "sliding_attention":
        window = None
    else:
        window = getattr(component, "sliding_window", getattr(config, "sliding_window", None))
    return None if window is None or window >= n_context else int(window)


def activation_function_of(model: str, mlp: Any, cfg: Any) -> str:
    """By its values; UnsupportedFeature for one that is not known or not elementwise."""
    component = mlp.original_component
    for key in ("act_fn", "activation_fn", "act"):
        if callable(getattr(component, key, None)):
            known = name_of_function(getattr(component, key))
            if known is None:
                raise UnsupportedFeature(model, f"activation function {cfg.act_fn}")
            return known
    raise UnsupportedFeature(model, f"activation function of {type(component).__name__}")
