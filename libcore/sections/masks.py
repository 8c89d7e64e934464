"""Grouping of per-output input masks, so that outputs which read the same inputs are evaluated together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def distinct_masks(
    mask: Bool[Tensor, "feature_out feature_in"], masks_per_chunk: int
) -> Iterator[tuple[Int[Tensor, "mask kept"], list[Int[Tensor, " outputs"]]]]:
    """Distinct rows of `mask`, ordered by how many inputs they keep, in chunks of at most `masks_per_chunk`.

    Yields the kept input indices of each row, padded with `feature_in` to the widest row of the chunk, and for each row
    the outputs that use it.
    """
    rows, output_of_row = torch.unique(mask, dim=0, return_inverse=True)
    by_size = torch.argsort(rows.sum(1))
    for chunk in by_size.split(masks_per_chunk):
        chosen = rows[chunk]
        width = max(1, int(chosen.sum(1).max()))
        # A stable sort of "not kept" puts each row's kept indices first, in order.
        order = torch.argsort((~chosen).to(torch.uint8), dim=1, stable=True)[:, :width]
        kept = torch.where(chosen.gather(1, order), order, mask.shape[1])
        yield kept, [torch.nonzero(output_of_row == row).flatten() for row in chunk]
