"""Edge ablation of a convolution: every output feature from its own masked inputs, without a convolution per mask.

What input feature `j` contributes to the hidden pixels, `z_j = first(fhat_j)`, does not depend on the mask. The hidden
pre-activations of all masks together are then one matrix product, `mask @ z`, instead of a convolution each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from libcore.sections.base import MaskedEvaluation
from libcore.sections.convolution.convolution import ConvolutionSection
from libcore.streams import rows_per_chunk, within_cache

BYTES_AT_A_TIME = 2**25
"""Working set of one block of examples: larger ones leave the cache, measured up to 1.9 times slower."""


def masked_hidden_evaluation(
    first: ConvolutionSection,
    second: ConvolutionSection,
    activation_function: Callable[[Tensor], Tensor],
    features: Float[Tensor, "batch position feature_in"],
    memory_budget: int,
) -> MaskedEvaluation:
    """`second_i(φ(sum_j mask_ij z_j))` for every output feature `i`; `first` and `second` are in features already."""
    n_in, d_hidden = first.kernel.shape[2:]
    hidden_pixels = second.grid[0] * second.grid[1]
    readers = second.pixels_read()
    n_offsets = second.kernel.shape[0] * second.kernel.shape[1]
    per_example = first.values_per_example() + 2 * second.kernel.shape[3] * hidden_pixels * (d_hidden + n_offsets)
    examples = rows_per_chunk(per_example, within_cache(memory_budget, BYTES_AT_A_TIME, features))
    kernel = second.kernel.flatten(0, 1).permute(2, 1, 0)  # [feature_out, d_hidden, offset]

    def evaluate(mask: Bool[Tensor, "some feature_in"], outputs: Tensor | None = None) -> Tensor:
        weights, blocks = mask.to(features.dtype), []
        chosen_kernel = kernel if outputs is None else kernel[outputs]
        for block in features.split(examples):
            contributions = first.contributions(block).reshape(n_in, -1)
            hidden = activation_function(weights @ contributions).view(len(mask), -1, d_hidden)
            by_offset = torch.bmm(hidden, chosen_kernel).view(len(mask), len(block), hidden_pixels, n_offsets)
            blocks.append(gathered(by_offset, readers))
        return torch.cat(blocks)

    return evaluate


def gathered(
    by_offset: Float[Tensor, "feature_out batch hidden_pixel offset"], readers: Int[Tensor, "position_out offset"]
) -> Float[Tensor, "batch position_out feature_out"]:
    """Sum over offsets of what each output pixel reads."""
    n_offsets = by_offset.shape[3]
    padded = functional.pad(by_offset, (0, 0, 0, 1)).flatten(2)
    index = readers * n_offsets + torch.arange(n_offsets, device=readers.device)
    return padded[:, :, index].sum(-1).permute(1, 2, 0)
