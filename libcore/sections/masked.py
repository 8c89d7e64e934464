"""Masked evaluation of any section: every distinct mask is one more pass over the batch."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.sections.base import FastMaskedEvaluation, MaskedEvaluation, Section
from libcore.sections.masks import distinct_masks
from libcore.streams import rows_per_chunk


def masked_evaluation(
    section: Section,
    features: Float[Tensor, "batch position feature_in"],
    from_basis: Float[Tensor, "feature_in d_in"],
    to_basis_next: Float[Tensor, "d_out feature_out"],
    memory_budget: int,
) -> MaskedEvaluation:
    """The section's own evaluation by mask where it has one, else `evaluate_mask_by_mask`."""
    if isinstance(section, FastMaskedEvaluation):
        return section.masked_evaluation(features, from_basis, to_basis_next, memory_budget)
    return evaluate_mask_by_mask(section, features, from_basis, to_basis_next, memory_budget)


def evaluate_mask_by_mask(
    section: Section,
    features: Float[Tensor, "batch position feature_in"],
    from_basis: Float[Tensor, "feature_in d_in"],
    to_basis_next: Float[Tensor, "d_out feature_out"],
    memory_budget: int,
) -> MaskedEvaluation:
    """Distinct masks side by side in the batch dimension, as many at a time as the memory budget holds."""
    n_examples, n_positions, _ = features.shape
    in_section = section.forward_values(features[:1] @ from_basis)
    values_per_mask = n_examples * (in_section + n_positions * (from_basis.shape[0] + 2 * from_basis.shape[1]))
    masks_per_chunk = rows_per_chunk(values_per_mask, memory_budget)

    def evaluate(mask: Bool[Tensor, "feature_out feature_in"]) -> Tensor:
        output = None
        for kept, outputs_of_mask in distinct_masks(mask, masks_per_chunk):
            rows = torch.zeros(len(kept), mask.shape[1] + 1, dtype=features.dtype, device=features.device)
            rows = rows.scatter_(1, kept, 1.0)[:, :-1]
            masked = features[None] * rows[:, None, None, :]
            evaluated = section((masked @ from_basis).flatten(0, 1)).unflatten(0, (len(kept), n_examples))
            if output is None:
                output = evaluated.new_empty(n_examples, evaluated.shape[2], len(mask))
            for activation, outputs in zip(evaluated, outputs_of_mask, strict=True):
                output[..., outputs] = activation @ to_basis_next[:, outputs]
        assert output is not None
        return output

    return evaluate
