"""Edge ablation of a block: every output feature from its own masked inputs, as matrix products.

What a branch reads is linear in the features but for its normalisation, so that a mask of few features costs as many
rows of the weights, and one that leaves few out costs those: they are taken off what is read of all. Of what the branch
writes a single column is computed. A pass through the section for each mask has the whole of both products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from libcore.basis import Basis
from libcore.sections.base import MaskedEvaluation, columns
from libcore.sections.branch import AddedBranch, Positions
from libcore.sections.masks import distinct_masks
from libcore.streams import rows_per_chunk, within_cache

VALUES_IN_CACHE = 2**19
"""Numbers that the second-level caches of two cores (1 MB each) hold in float32; measured best on such."""


def masked_block_evaluation(
    residual: Float[Tensor, "d_in d_out"],
    branches: tuple[AddedBranch, ...],
    positions: Positions,
    features: Float[Tensor, "batch position feature_in"],
    basis: Basis,
    next_basis: Basis,
    memory_budget: int,
) -> MaskedEvaluation:
    """The residual stream's part is one product for all masks."""
    at_queries = positions.at_queries(features)
    linear = basis.from_basis @ residual @ next_basis.to_basis
    masked = [MaskedBranch(branch, positions, features, basis, next_basis, memory_budget) for branch in branches]

    def evaluate(mask: Bool[Tensor, "some feature_in"], outputs: Tensor | None = None) -> Tensor:
        output = at_queries @ (columns(linear, outputs) * mask.T)
        for branch in masked:
            branch.add_to(output, mask, outputs)
        return output

    return evaluate


class MaskedBranch:
    """What one branch adds."""

    def __init__(
        self,
        branch: AddedBranch,
        positions: Positions,
        features: Float[Tensor, "batch position feature_in"],
        basis: Basis,
        next_basis: Basis,
        memory_budget: int,
    ) -> None:
        self.branch = branch
        self.positions = positions
        # A position that is read alone is an example by itself.
        self.features = positions.at_queries(features).flatten(0, 1)[:, None] if branch.position_wise else features
        weight, self.normalisation, from_basis = branch.read_weight, branch.read_normalisation, basis.from_basis
        self.from_constant = weight[-1]
        # The constant is a feature by itself, or of few.
        self.constant_features = torch.nonzero(from_basis[:, -1]).flatten()
        self.constant = from_basis[self.constant_features, -1:]
        if self.normalisation is None:
            self.read_weight = from_basis @ weight
        else:
            width = self.normalisation.width
            read = from_basis[:, :width] @ weight[:width]
            self.read_weight = torch.cat([read, self.normalisation.centre(from_basis)], dim=1)
        # The padding index of `distinct_masks` points at this row of zeros.
        self.padded = torch.cat([self.read_weight, torch.zeros_like(self.read_weight[:1])])
        self.write_weight = branch.write_weight @ next_basis.to_basis
        self.examples, self.masks = self._at_a_time(memory_budget)

    def _at_a_time(self, memory_budget: int) -> tuple[int, int]:
        """Examples, and masks for these. On a CPU what they read stays in the caches."""
        budget = memory_budget // 8
        n_features, n_read = self.read_weight.shape
        n_positions = self.features.shape[1]
        n_queries = 1 if self.branch.position_wise else len(self.positions.queries)
        of_products = n_positions * (n_features + n_read)
        in_cache = within_cache(8 * budget, 8 * VALUES_IN_CACHE, self.features)
        examples = min(rows_per_chunk(n_positions * n_read, in_cache), rows_per_chunk(2 * of_products, budget))
        examples = min(examples, len(self.features))
        values = self.branch.forward_values(n_positions, n_queries) + of_products
        of_mask = n_features * n_read + examples * values
        in_cache_at_once = rows_per_chunk(examples * n_positions * n_read, in_cache)
        return examples, min(in_cache_at_once, rows_per_chunk(of_mask, budget))

    def add_to(
        self,
        output: Float[Tensor, "batch query some"],
        mask: Bool[Tensor, "some feature_in"],
        outputs: Int[Tensor, " some"] | None,
    ) -> None:
        """Adds what the branch writes to these outputs."""
        write_weight = columns(self.write_weight, outputs)
        groups = list(masks_by_what_is_fewer(mask, self.masks))
        constant_of = self.constant * mask[:, self.constant_features].T
        output = output.view(len(self.features), -1, output.shape[2])
        blocks = zip(self.features.split(self.examples), output.split(self.examples), strict=True)
        for features, output_block in blocks:
            read_of, constant = self._reading(features), features[..., self.constant_features] @ constant_of
            for group in groups:
                first = torch.stack([those[0] for those in group.outputs])
                of_masks = constant[..., first].permute(2, 0, 1)
                written = self._written(read_of(group), of_masks)
                for of_mask, those in zip(written, group.outputs, strict=True):
                    output_block[..., those] += of_mask @ write_weight[:, those]

    def _reading(
        self, features: Float[Tensor, "batch position feature_in"]
    ) -> Callable[[MasksAlike], Float[Tensor, "mask batch position read"]]:
        """What is read of these examples, by masks."""
        flat, of_all = features.flatten(0, 1), None

        def read(group: MasksAlike) -> Tensor:
            nonlocal of_all
            chosen = flat[:, group.index.clamp(max=flat.shape[1] - 1)].transpose(0, 1)
            if group.left_out and of_all is None:
                of_all = flat @ self.read_weight
            if group.left_out and of_all is not None:
                product = torch.baddbmm(of_all.expand(len(chosen), -1, -1), chosen, self.padded[group.index], alpha=-1)
            else:
                product = torch.bmm(chosen, self.padded[group.index])
            return product.unflatten(1, features.shape[:2])

        return read

    def _written(
        self,
        product: Float[Tensor, "mask batch position read_and_centred"],
        constant: Float[Tensor, "mask batch position"],
    ) -> Float[Tensor, "mask batch query written"]:
        """What is between reading and writing; the normalisation divides what is read of the residual stream."""
        if self.normalisation is not None:
            product, centred = product.split((len(self.from_constant), self.normalisation.width), dim=-1)
            scale = self.normalisation.inverse_scale_of(centred)
            product = torch.addcmul(constant[..., None] * self.from_constant, product, scale)
        between = self.branch.between(product.flatten(0, 1), constant.flatten(0, 1), self.positions)
        return between.unflatten(0, product.shape[:2])


@dataclass(frozen=True)
class MasksAlike:
    """Distinct masks, and which outputs use each.

    Attributes:
        index: of the features that each keeps, or leaves out; as many as there are features stands for none.
        left_out: which of both.
    """

    index: Int[Tensor, "mask chosen"]
    left_out: bool
    outputs: list[Int[Tensor, " _"]]


def masks_by_what_is_fewer(mask: Bool[Tensor, "feature_out feature_in"], masks_per_group: int) -> Iterator[MasksAlike]:
    """Masks that keep few features by those, and masks that leave few out by those."""
    leaves_few_out = 2 * mask.sum(1) > mask.shape[1]
    for left_out in (False, True):
        rows = torch.nonzero(leaves_few_out == left_out).flatten()
        if len(rows):
            for index, outputs in distinct_masks(mask[rows] ^ left_out, masks_per_group):
                yield MasksAlike(index, left_out, [rows[those] for those in outputs])
