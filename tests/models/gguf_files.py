"""Tiny random models as GGUF files, written as llama.cpp's own conversion writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

MERGES = ("Ġ t", "h e", "Ġt he")
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ("<unk>", "<s>", "</s>", *ALPHABET, *(merge.replace(" ", "") for merge in MERGES))
BEGINNING = 1
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 24,
    "bos_token_id": BEGINNING,
    "eos_token_id": 2,
    "pad_token_id": None,
    "rms_norm_eps": 1e-5,
}
NAMES = {"Llama": "llama", "Qwen2": "qwen2"}
"""The format's names of architectures."""


def write_gguf(path: Path, model: Any, family: str, quantized: str = "F32", architecture: str | None = None) -> None:
    """A model of `SIZES` with the tokenizer of `TOKENS` and `MERGES`; matrices in the named type of numbers."""
    import gguf
    from gguf.quants import quantize

    config, name = model.config, architecture or NAMES[family]
    writer = gguf.GGUFWriter(path, name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(BEGINNING)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, family.upper()), config.num_hidden_layers)
    kind = gguf.GGMLQuantizationType[quantized]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for hugging_face_name, weight in model.state_dict().items():
        numbers = weight.float().numpy()
        projection = next((one for one in heads if one in hugging_face_name), None)
        if family == "Llama" and projection is not None:
            numbers = interleaved(numbers, heads[projection])
        stored = kind if numbers.ndim == 2 else gguf.GGMLQuantizationType.F32
        in_file = names.get_name(hugging_face_name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(in_file, quantize(numbers, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """A Llama's rows with the two halves of each head's rotary pairs beside each other, as the format has them."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
