"""Block of a network with a residual stream: the stream's own part plus what each branch adds to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import combinations
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.parallel import map_shares
from libcore.quadrature import Quadrature
from libcore.sections.base import MaskedEvaluation, Section
from libcore.sections.block_operations import (
    block_edge_operations,
    block_edge_values,
    block_gram_memory,
    block_gram_operations,
    block_gram_values,
    bytes_of_thread,
)
from libcore.sections.branch import AddedBranch, Branch, Positions
from libcore.sections.masked_block import masked_block_evaluation
from libcore.sections.operations import Operations
from libcore.streams import ActivationStream, float64_zeros, rows_per_chunk, within_cache

Block = TypeVar("Block", bound="BlockSection")
OneBranch = TypeVar("OneBranch", bound=AddedBranch)

BYTES_IN_CACHE = 80 * 2**20
"""Working set of a chunk on a CPU: larger ones are written to memory and read back, which takes longer than products;
in smaller ones, what every operation takes to begin shows."""

ATTRIBUTION_BYTES_IN_CACHE = 12 * 2**20
"""Of attributions, likewise: half for what an example's output positions share, half for those taken at a time."""


class ResidualBlock(Section, Generic[OneBranch]):
    """`f -> f_t @ residual + sum over branches of branch(f)_t`; several branches are parallel ones.

    Args:
        residual: `[d_in, d_out]`, carries the residual stream, output biases (last row) and the constant coordinate.
        branches: attention, MLP, normalisation; any number of them.
        query_positions: the output positions to compute, None for all. What no later computation reads is left out.
    """

    def __init__(
        self,
        residual: Float[Tensor, "d_in d_out"],
        branches: tuple[OneBranch, ...],
        query_positions: tuple[int, ...] | None = None,
    ) -> None:
        self.residual = residual
        self.branches = branches
        self.query_positions = query_positions
        self.carries_constant_alone = not residual[:-1].any().item()

    def positions_of(self, activation: Float[Tensor, "batch position d_in"]) -> Positions:
        """Input and output positions."""
        return Positions.of(activation.shape[1], self.query_positions, activation.device)

    def __call__(self, activation: Float[Tensor, "batch position d_in"]) -> Float[Tensor, "batch position_out d_out"]:
        positions = self.positions_of(activation)
        output = self.carried(positions.at_queries(activation))
        for branch in self.branches:
            output = output + branch(activation, positions)
        return output

    def carried(self, activation: Float[Tensor, "batch query d_in"]) -> Float[Tensor, "batch query d_out"]:
        """`f_t @ residual`; no product where nothing but the constant is carried."""
        if self.carries_constant_alone:
            return activation[..., -1:] * self.residual[-1]
        return activation @ self.residual

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        basis: Basis,
        next_basis: Basis,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """Every branch by what its masks keep or leave out."""
        positions = self.positions_of(features)
        return masked_block_evaluation(
            self.residual, self.branches, positions, features, basis, next_basis, memory_budget
        )

    def forward_values(self, example: Float[Tensor, "1 position d_in"]) -> int:
        positions = self.positions_of(example)
        n_queries = len(positions.queries)
        in_branches = max((branch.forward_values(positions.count, n_queries) for branch in self.branches), default=0)
        return example.numel() + 2 * n_queries * self.residual.shape[1] + in_branches

    def forward_operations(self, example: Float[Tensor, "1 position d_in"]) -> int:
        positions = self.positions_of(example)
        carried = 0 if self.carries_constant_alone else 2 * len(positions.queries) * self.residual.numel()
        return carried + sum(branch.forward_operations(positions) for branch in self.branches)


class BlockSection(ResidualBlock[Branch]):
    """One whose branches all have closed forms, which its own are put together from."""

    @property
    def weights_written(self) -> int:
        """Of the residual stream's part and all branches."""
        return self.residual.numel() + sum(branch.writes.numel() for branch in self.branches)

    def followed_by(self: Block, weight: Float[Tensor, "d_out d_further"]) -> Block:
        """What every branch and the residual stream write, written in other coordinates."""
        section = copy(self)
        section.residual = self.residual @ weight
        section.branches = tuple(branch.followed_by(weight) for branch in self.branches)
        return section

    def closed_form_jacobian_gram(
        self, stream: ActivationStream, next_basis: Basis, quadrature: Quadrature
    ) -> Float[Tensor, "d_in d_in"]:
        """Each branch by its own closed form; branches and residual stream meet within a position (METHOD.md 5)."""
        residual = self.residual.double() @ next_basis.to_basis.double()
        example = stream.example()
        positions = self.positions_of(example)
        n_queries, n_points = len(positions.queries), len(quadrature.points)
        values = block_gram_values(self.branches, positions, len(residual), residual.shape[1], n_points)

        def gram_of(chunks: Iterator[Tensor]) -> Tensor:
            sums = [branch.jacobian_sums(next_basis, quadrature) for branch in self.branches]
            total, count = float64_zeros(len(residual), len(residual), like=residual), 0
            for activation in chunks:
                with torch.no_grad():
                    dense = [branch.add(activation.double(), positions) for branch in sums]
                    for one, other in combinations(dense, 2):
                        total += torch.einsum("nik,njk->ij", one(), other())
                count += len(activation)
            for branch in sums:
                total += residual @ branch.transfer().T
            total = total + total.T
            total += residual @ residual.T * (count * n_queries)
            for branch in sums:
                total += branch.gram()
            return total

        shares = map_shares(stream, values, BYTES_IN_CACHE, gram_of)
        return torch.stack(shares).sum(0) / (stream.n_examples * positions.count)

    def closed_form_edges(
        self,
        stream: ActivationStream,
        basis: Basis,
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """Branches' attributions add up before they are squared (eq. 7-8)."""
        basis, next_basis = basis.double(), next_basis.double()
        residual = basis.from_basis @ self.residual.double() @ next_basis.to_basis
        example = stream.example()
        positions = self.positions_of(example)
        parts = [branch.attributions(basis, next_basis, quadrature, positions) for branch in self.branches]
        n_queries, (n_in, n_out) = len(positions.queries), residual.shape
        shape = (len(self.residual), n_in, n_out, len(quadrature.points))
        values, per_query = block_edge_values(self.branches, positions, *shape)
        most_bytes = within_cache(stream.memory_budget, ATTRIBUTION_BYTES_IN_CACHE, example)
        budget = bytes_of_thread(stream.memory_budget, ATTRIBUTION_BYTES_IN_CACHE, example) // 2

        def square_sum_of(chunks: Iterator[Tensor]) -> Tensor:
            square_sum = float64_zeros(n_out, n_in, like=residual)
            attribution: Tensor | None = None  # one for all rows: fresh memory costs more than what is written to it
            for activation in chunks:
                features = basis.features(activation.double())
                added = [part(features) for part in parts]
                at_queries = positions.at_queries(features)
                size = rows_per_chunk(len(features) * per_query, budget)
                for start in range(0, n_queries, size):
                    rows = slice(start, min(start + size, n_queries))
                    shape = (n_out, *at_queries[:, rows].shape)
                    if attribution is None or attribution.shape != shape:
                        attribution = residual.new_empty(shape)
                    torch.mul(at_queries[:, rows], residual.T[:, None, None], out=attribution)
                    for add in added:
                        add(attribution, rows)
                    square_sum += attribution.square_().sum((1, 2))
            return square_sum

        shares = map_shares(stream, values, most_bytes, square_sum_of)
        return torch.stack(shares).sum(0) / (stream.n_examples * positions.count)

    def gram_operations(self, example: Tensor, n_out: int, n_points: int) -> Operations:
        return block_gram_operations(self.residual, self.branches, self.positions_of(example), n_out, n_points)

    def gram_memory(self, example: Tensor, n_out: int, n_points: int) -> tuple[int, int]:
        return block_gram_memory(self.residual, self.branches, self.positions_of(example), n_out, n_points)

    def edge_operations(
        self, example: Tensor, n_in: int, n_out: int, n_points: int, n_examples: int, memory_budget: int
    ) -> Operations:
        at_a_time = bytes_of_thread(memory_budget, ATTRIBUTION_BYTES_IN_CACHE, example)
        shapes = (self.positions_of(example), example, n_in, n_out, n_points, n_examples)
        return block_edge_operations(self.residual, self.branches, *shapes, at_a_time)

    def edge_memory(self, example: Tensor, n_in: int, n_out: int, n_points: int) -> tuple[int, int]:
        positions, (d_in, d_out) = self.positions_of(example), self.residual.shape
        values, _ = block_edge_values(self.branches, positions, d_in, n_in, n_out, n_points)
        weights = sum(branch.attribution_weights(positions, n_in, n_out) for branch in self.branches)
        beside_all = 2 * (d_in * n_in + d_out * n_out) + d_in * d_out + n_in * n_out
        return values, weights + beside_all


def residual_block(residual: Float[Tensor, "d_in d_out"], branches: Sequence[AddedBranch]) -> ResidualBlock[Any]:
    """With closed forms where all branches have them."""
    if all(isinstance(branch, Branch) for branch in branches):
        return BlockSection(residual, tuple(branch for branch in branches if isinstance(branch, Branch)))
    return ResidualBlock(residual, tuple(branches))
