"""Tiny random decoders of every family, themselves and as TransformerLens bridges, and how they compute in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from models.transformer.architecture import Architecture, Weights
from models.transformer.bridge import convert
from models.transformer.reference import Reference

N_TOKENS = 17
N_CONTEXT = 16
WINDOW = 4

SIZES: dict[str, Any] = {
    "vocab_size": N_TOKENS,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": N_CONTEXT,
}
GPT_SIZES: dict[str, Any] = {"vocab_size": N_TOKENS, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": N_CONTEXT}
WIDE = {**SIZES, "hidden_size": 24}
GROUPED = {**WIDE, "num_attention_heads": 6, "num_key_value_heads": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
NEO: dict[str, Any] = {"vocab_size": N_TOKENS, "hidden_size": 12, "num_layers": 2, "num_heads": 3}
NEO |= {"intermediate_size": 20, "max_position_embeddings": N_CONTEXT}
NARROW = {**SIZES, "num_key_value_heads": 1, "head_dim": 4}
TWO_TYPES = {"layer_types": ["sliding_attention", "full_attention"]}
FALCON = {"vocab_size": N_TOKENS, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
GRANITE = {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 4.0, "attention_multiplier": 0.2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "llama with biases": ("Llama", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "llama, linear rotary scaling": ("Llama", {**GROUPED, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "llama 3 rotary scaling": ("Llama", {**GROUPED, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 8}}),
    "llama, yarn": ("Llama", {**GROUPED, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    "gpt2": ("GPT2", GPT_SIZES),
    "gpt2, scale by layer": ("GPT2", {**GPT_SIZES, "scale_attn_by_inverse_layer_idx": True}),
    "gpt-neo": (
        "GPTNeo",
        {**NEO, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    ),
    "gpt-neox, parallel": ("GPTNeoX", {**WIDE, "use_parallel_residual": True, "rotary_pct": 0.5}),
    "gpt-neox, sequential": ("GPTNeoX", {**WIDE, "use_parallel_residual": False, "rotary_pct": 0.25}),
    "gpt-j": ("GPTJ", {**GPT_SIZES, "rotary_dim": 4, "n_inner": 20}),
    "mistral": ("Mistral", {**SIZES, "num_key_value_heads": 3, "sliding_window": WINDOW}),
    "gemma": ("Gemma", {**SIZES, "num_key_value_heads": 1, "head_dim": 6}),
    "phi": ("Phi", {**WIDE, "partial_rotary_factor": 0.5}),
    "phi 3": ("Phi3", {**SIZES, "num_key_value_heads": 1, "pad_token_id": 0}),
    "qwen 2": ("Qwen2", {**SIZES, "num_key_value_heads": 1}),
    "opt": ("OPT", {**SIZES, "ffn_dim": 20, "word_embed_proj_dim": 12}),
    "stablelm": ("StableLm", {**WIDE, "num_key_value_heads": 3}),
    "stablelm, normalised queries": ("StableLm", {**WIDE, "num_key_value_heads": 3, "qk_layernorm": True}),
    "starcoder 2": ("Starcoder2", {**SIZES, "num_key_value_heads": 1, "sliding_window": WINDOW}),
    "nemotron": ("Nemotron", {**SIZES, "num_key_value_heads": 1}),
    "ernie": ("Ernie4_5", {**SIZES, "num_key_value_heads": 1}),
    "falcon, multi-query": ("Falcon", {**FALCON, "multi_query": True, "parallel_attn": True}),
    "falcon, alibi": ("Falcon", {**FALCON, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True}),
    "bloom": ("Bloom", {"vocab_size": N_TOKENS, "hidden_size": 12, "n_layer": 2, "n_head": 3}),
    "mpt": ("Mpt", {"d_model": 12, "n_layers": 2, "n_heads": 2, "max_seq_len": N_CONTEXT, "vocab_size": N_TOKENS}),
    "codegen": ("CodeGen", {**GPT_SIZES, "n_head": 4, "n_ctx": N_CONTEXT, "rotary_dim": 4}),
    "opt, projected, normalised sums": (
        "OPT",
        {**SIZES, "ffn_dim": 20, "word_embed_proj_dim": 6, "do_layer_norm_before": False},
    ),
    "qwen 3": ("Qwen3", NARROW),
    "gemma 2": ("Gemma2", {**NARROW, "query_pre_attn_scalar": 5, "sliding_window": WINDOW}),
    "gemma 2 without caps": (
        "Gemma2",
        {**NARROW, "attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": WINDOW},
    ),
    "gemma 3": ("Gemma3", {**NARROW, "query_pre_attn_scalar": 5, "sliding_window": WINDOW, **TWO_TYPES}),
    "olmo": ("Olmo", {**SIZES, "num_key_value_heads": 1}),
    "olmo, clipped": ("Olmo", {**SIZES, "clip_qkv": 0.5}),
    "olmo 2": ("Olmo2", {**SIZES, "num_key_value_heads": 1}),
    "olmo 3": ("Olmo3", {**SIZES, "num_key_value_heads": 1, "sliding_window": WINDOW, **TWO_TYPES}),
    "glm": ("Glm", {**NARROW, "pad_token_id": 0}),
    "glm 4": ("Glm4", {**NARROW, "pad_token_id": 0}),
    "exaone 4": ("Exaone4", {**SIZES, "num_key_value_heads": 1, "sliding_window": WINDOW, **TWO_TYPES}),
    "granite": ("Granite", {**SIZES, "num_key_value_heads": 1, **GRANITE}),
    "cohere": ("Cohere", {**SIZES, "num_key_value_heads": 3}),
    "cohere, normalised queries": ("Cohere", {**SIZES, "num_key_value_heads": 1, "use_qk_norm": True}),
    "cohere 2": ("Cohere2", {**NARROW, "sliding_window": WINDOW, **TWO_TYPES}),
    "smollm 3": ("SmolLM3", {**SIZES, "num_key_value_heads": 1, "no_rope_layers": [1, 0], "pad_token_id": 0}),
    "hunyuan": ("HunYuanDenseV1", NARROW),
}
"""Their hidden layers are two: one layer of each type, where there are two."""

NATIVE: dict[str, dict[str, Any]] = {
    "learned positions": {},
    "no normalisation": {"normalization_type": None, "act_fn": "relu"},
    "normalisation without gain": {"normalization_type": "LNPre"},
    "final RMSNorm": {"final_rms": True},
    "gated, RMSNorm": {"normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu"},
    "grouped queries": {"n_key_value_heads": 1},
    "attention alone": {"attn_only": True},
    "rotary": {"positional_embedding_type": "rotary", "rotary_dim": 4},
    "scaled rotary": {"positional_embedding_type": "rotary", "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "other attention scale": {"attn_scale": 3.0},
    "other outputs": {"d_vocab_out": 5},
}


def hugging_face_model(family: str, options: dict[str, Any], dtype: torch.dtype) -> Any:
    """A random model; gains and biases are not the ones and zeros that would hide a forgotten one."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}{'TextConfig' if family == 'Gemma3' else 'Config'}")(**options)
    kind = getattr(transformers, f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")
    model = kind(config)
    config.architectures = [kind.__name__]
    return randomised(model, offset=0.0 if family == "Gemma" else 1.0).to(dtype).eval()


def randomised(model: nn.Module, offset: float) -> nn.Module:
    """Weights large enough that every part of the model moves its logits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = parameter.ndim == 1 and not name.endswith("bias")
            parameter.normal_(std=0.3).add_(offset if is_gain else 0.0)
    return model


class Decoder(NamedTuple):
    """A model as a bridge, and as itself, with the same weights."""

    bridge: Any
    own: Any

    def logits(self, tokens: Tensor) -> Tensor:
        """The model's own."""
        output = self.own(tokens)
        return getattr(output, "logits", output)

    def converted(self) -> tuple[Architecture, Weights]:
        return convert(self.bridge, Reference.of(self.logits, getattr(self.own, "config", self.bridge.cfg)))


def hugging_face_decoder(family: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> Decoder:
    return Decoder(hugging_face_bridge(family, options, dtype), hugging_face_model(family, options, dtype))


def native_decoder(options: dict[str, Any], dtype: torch.dtype = torch.float32) -> Decoder:
    bridge = native_bridge(options, dtype)
    return Decoder(bridge, bridge)


def hugging_face_bridge(family: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    model = hugging_face_model(family, options, dtype)
    return build_bridge_from_module(model, type(model).__name__, hf_config=model.config, model_name=f"tiny {family}")


def native_bridge(options: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    defaults = {"act_fn": "gelu_new", "normalization_type": "LN", "positional_embedding_type": "standard"}
    sizes = {"d_model": 12, "n_layers": 2, "n_heads": 2, "d_head": 6, "d_mlp": 20, "n_ctx": N_CONTEXT, "seed": 0}
    rope_scaling = options.get("rope_scaling")
    options = {name: value for name, value in options.items() if name != "rope_scaling"}
    config = TransformerBridgeConfig(d_vocab=N_TOKENS, **{**sizes, **defaults, **options})
    config.rope_scaling = rope_scaling  # pyright: ignore[reportAttributeAccessIssue]
    bridge = TransformerBridge.boot_native(config, dtype=dtype, model_name="tiny native")
    return randomised(bridge, offset=1.0).eval()


@contextmanager
def no_rounding_to_float32() -> Iterator[None]:
    """Models as their own code computes them, but for its conversions to float32, which become float64.

    Hugging Face's models (and TransformerLens's own) compute RMSNorm, rotary angles and some attention scores in
    float32 whatever their weights are, so that a float64 bridge is only exact to float32.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(Tensor, "float", Tensor.double)
        yield


def with_float64_angles(model: Any, frequencies: tuple[tuple[float, ...], ...]) -> Any:
    """Tables of angles that models keep (GPT-J, native ones), from the same frequencies, in float64."""
    of_layer = torch.tensor(frequencies[0] if frequencies else (), dtype=torch.float64)
    angles = torch.arange(N_CONTEXT, dtype=torch.float64)[:, None] * of_layer
    for module in (*model.modules(), *getattr(model, "original_model", model).modules()):
        if "cos_cached" in dict(module.named_buffers(recurse=False)):
            module.cos_cached = angles.cos().repeat_interleave(2, dim=-1)
            module.sin_cached = angles.sin().repeat_interleave(2, dim=-1)
        if "embed_positions" in dict(module.named_buffers(recurse=False)):
            module.embed_positions = torch.cat([angles.sin(), angles.cos()], dim=1)
    return model


DECODERS: dict[str, Callable[[torch.dtype], Decoder]] = {
    **{name: lambda dtype, case=case: hugging_face_decoder(*case, dtype) for name, case in FAMILIES.items()},
    **{f"native, {name}": lambda dtype, case=case: native_decoder(case, dtype) for name, case in NATIVE.items()},
}
