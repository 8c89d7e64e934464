"""What of TransformerLens's models a chain of sections cannot represent, named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

CONFIGURED = {
    "num_experts": "mixture of experts",
    "is_stateful": "state-space or recurrent layers",
    "is_multimodal": "inputs other than text",
    "is_audio_model": "inputs other than text",
    "is_visual_model": "inputs other than text",
    "per_layer_head_dim": "head widths that differ between layers",
}
"""Options of a bridge's configuration that must be off."""

FACTORS = {"output_multiplier": "scaled logits"}
"""Options that must be one."""

POSITIONS = {
    "relative_positional_bias": "relative position bias",
    "shortformer": "positions added to queries and keys",
}

COMPONENTS = {
    "cross_attn": "cross-attention",
    "encoder_blocks": "encoder-decoder",
    "decoder_blocks": "encoder-decoder",
    "mixer": "state-space or recurrent layers",
    "linear_attn": "state-space or recurrent layers",
    "router": "mixture of experts",
    "shared_experts": "mixture of experts",
}

KNOWN = {
    "model": {
        "embed",
        "embed_ln",
        "project_in",
        "pos_embed",
        "rotary_emb",
        "blocks",
        "ln_final",
        "project_out",
        "unembed",
    },
    "block": {"ln1", "ln1_post", "ln2", "ln2_post", "attn", "mlp"},
    "attn": {"q", "k", "v", "o", "qkv", "rotary_emb", "rotary", "q_norm", "k_norm"},
    "mlp": {"in", "gate", "out", "gate_up"},
}
"""Parts that a chain's sections compute."""


class UnsupportedFeature(ValueError):
    """A model that a chain of sections cannot represent."""

    def __init__(self, model: str, feature: str) -> None:
        super().__init__(f"{model}: {feature} cannot be represented as a chain of sections")


def refuse_unsupported(bridge: TransformerBridge) -> None:
    """Raises UnsupportedFeature for the first thing that a configuration or a component says of itself."""
    name = model_name(bridge)
    feature = configured_feature(bridge.cfg)
    if feature is not None:
        raise UnsupportedFeature(name, feature)
    for where, component in parts(bridge):
        for part in sorted(components_of(component) - KNOWN[where]):
            raise UnsupportedFeature(name, COMPONENTS.get(part, f"component {part!r} of its {where}"))
        if "MoE" in type(component).__name__:
            raise UnsupportedFeature(name, "mixture of experts")
    for layer, block in enumerate(bridge.blocks):
        if "attn" not in components_of(block) or not {"ln1", "ln1_post"} & components_of(block):
            raise UnsupportedFeature(name, f"block {layer} without attention and a normalisation")


def configured_feature(cfg: Any) -> str | None:
    """The first unsupported feature that a bridge's configuration tells of, None for none."""
    for option, feature in CONFIGURED.items():
        if getattr(cfg, option, None):
            return feature
    for option, feature in FACTORS.items():
        if getattr(cfg, option, None) not in (None, 1.0):
            return feature
    if cfg.positional_embedding_type not in ("standard", "rotary", "alibi"):
        return POSITIONS.get(cfg.positional_embedding_type, f"positions of type {cfg.positional_embedding_type}")
    return None if cfg.attention_dir == "causal" else f"{cfg.attention_dir} attention"


def parts(bridge: TransformerBridge) -> list[tuple[str, Any]]:
    """Components that have components, and what they are."""
    found: list[tuple[str, Any]] = [("model", bridge)]
    for block in bridge.blocks if "blocks" in components_of(bridge) else ():
        found.append(("block", block))
        found += [(name, getattr(block, name)) for name in ("attn", "mlp") if name in components_of(block)]
    return found


def components_of(component: Any) -> set[str]:
    """Names of the bridged components directly below one."""
    children = dict(component.named_children())
    return {name for name, child in children.items() if name == "blocks" or hasattr(child, "original_component")}


def has_part(component: Any, name: str) -> bool:
    """Whether a bridge, or a block of it, has a component of its own by that name."""
    return name in dict(component.named_children())


def model_name(bridge: TransformerBridge) -> str:
    """What messages call the model."""
    return str(bridge.cfg.model_name)
