"""Grouping outputs by mask: every output once, with exactly its own inputs."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from libcore.sections.masks import distinct_masks


@st.composite
def masks(draw: st.DrawFn) -> torch.Tensor:
    """Boolean matrices in which duplicate rows are common."""
    n_in = draw(st.integers(1, 5))
    pool = draw(st.lists(st.lists(st.booleans(), min_size=n_in, max_size=n_in), min_size=1, max_size=4))
    return torch.tensor(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=9)))


@given(mask=masks(), masks_per_chunk=st.integers(1, 5))
def test_every_output_comes_once_with_its_own_inputs(mask: torch.Tensor, masks_per_chunk: int) -> None:
    n_in, seen, sizes = mask.shape[1], [], []
    for kept, outputs_of_mask in distinct_masks(mask, masks_per_chunk):
        assert len(kept) == len(outputs_of_mask) <= masks_per_chunk
        for indices, outputs in zip(kept.tolist(), outputs_of_mask, strict=True):
            present = [index for index in indices if index != n_in]
            assert indices == present + [n_in] * (len(indices) - len(present))
            sizes.append(len(present))
            seen += outputs.tolist()
            for output in outputs.tolist():
                assert present == torch.nonzero(mask[output]).flatten().tolist()
    assert sorted(seen) == list(range(len(mask)))
    assert sizes == sorted(sizes)
    assert len(sizes) == len({tuple(row) for row in mask.tolist()})


@given(mask=masks(), masks_per_chunk=st.integers(1, 5))
def test_a_chunk_is_as_wide_as_its_widest_mask(mask: torch.Tensor, masks_per_chunk: int) -> None:
    for kept, _ in distinct_masks(mask, masks_per_chunk):
        widest = (kept != mask.shape[1]).sum(1).max().item()
        assert kept.shape[1] == max(1, widest)
