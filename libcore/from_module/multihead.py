"""PyTorch's own attention written out in operations whose biases can be folded one by one."""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from libcore.from_module.refusal import NotRead


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    average_attn_weights: bool = True,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """`torch.nn.functional`'s, `[position, batch, d]`; NotRead for options that `nn.MultiheadAttention` rarely has."""
    rare = {"bias_k": bias_k, "add_zero_attn": add_zero_attn or None, "key_padding_mask": key_padding_mask}
    given = [name for name, option in rare.items() if option is not None]
    if given or in_proj_weight is None or use_separate_proj_weight or query.ndim != 3:
        raise NotRead(
            f"MultiheadAttention with {(given or ['separate projections'])[0]}; expected plain self-attention"
        )
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    queries, keys, values = (
        functional.linear(read, weight, bias).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
        for read, weight, bias in zip((query, key, value), in_proj_weight.chunk(3), biases, strict=True)
    )
    scores = queries @ keys.transpose(-1, -2) / sqrt(queries.shape[-1])
    if attn_mask is not None:
        attn_mask = attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (-1, num_heads))
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(attn_mask, -torch.inf) if masked else scores + attn_mask
    pattern = scores.softmax(-1)
    mixed = (pattern @ values).permute(2, 0, 1, 3).flatten(2)
    output = functional.linear(mixed, out_proj_weight, out_proj_bias)
    if not need_weights:
        return output, None
    return output, pattern.mean(1) if average_attn_weights else pattern
