"""Masked evaluation of any section: every distinct mask is one more pass over the batch."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.basis import Basis
from libcore.sections.base import FastMaskedEvaluation, MaskedEvaluation, Section, columns
from libcore.sections.masks import distinct_masks
from libcore.streams import rows_per_chunk


def masked_evaluation(
    section: Section,
    features: Float[Tensor, "batch position feature_in"],
    basis: Basis,
    next_basis: Basis,
    memory_budget: int,
) -> MaskedEvaluation:
    """The section's own evaluation by mask where it has one, else `evaluate_mask_by_mask`."""
    if isinstance(section, FastMaskedEvaluation):
        return section.masked_evaluation(features, basis, next_basis, memory_budget)
    return evaluate_mask_by_mask(section, features, basis, next_basis, memory_budget)


def evaluate_mask_by_mask(
    section: Section,
    features: Float[Tensor, "batch position feature_in"],
    basis: Basis,
    next_basis: Basis,
    memory_budget: int,
) -> MaskedEvaluation:
    """Distinct masks side by side in the batch dimension, as many at a time as the memory budget holds."""
    n_examples, n_positions, _ = features.shape
    in_section = section.forward_values(basis.activation(features[:1]))
    values_per_mask = n_examples * (in_section + n_positions * (basis.n_features + 2 * basis.d))
    masks_per_chunk = rows_per_chunk(values_per_mask, memory_budget)

    def evaluate(mask: Bool[Tensor, "some feature_in"], outputs: Tensor | None = None) -> Tensor:
        to_basis, output = columns(next_basis.to_basis, outputs), None
        for kept, outputs_of_mask in distinct_masks(mask, masks_per_chunk):
            rows = torch.zeros(len(kept), mask.shape[1] + 1, dtype=features.dtype, device=features.device)
            rows = rows.scatter_(1, kept, 1.0)[:, :-1]
            masked = features[None] * rows[:, None, None, :]
            evaluated = section(basis.activation(masked).flatten(0, 1)).unflatten(0, (len(kept), n_examples))
            if output is None:
                output = evaluated.new_empty(n_examples, evaluated.shape[2], len(mask))
            for activation, those in zip(evaluated, outputs_of_mask, strict=True):
                output[..., those] = activation @ to_basis[:, those]
        assert output is not None
        return output

    return evaluate
