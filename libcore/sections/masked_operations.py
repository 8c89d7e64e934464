"""Operations of a section whose output features each have their own masked inputs (`masked.py`, `masked_block.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from libcore.sections.affine import AffineSection
from libcore.sections.base import Section
from libcore.sections.block import ResidualBlock
from libcore.sections.branch import AddedBranch, Positions


@dataclass(frozen=True)
class Masks:
    """Of some output features.

    Attributes:
        n_in: features that there are to read.
        outputs: how many output features are evaluated.
        distinct: masks among theirs that differ, at most.
        chosen: features that these masks keep, or leave out where that is fewer, over all of them.
        reads_all: whether some leave out, so that what is read of all features is needed.
    """

    n_in: int
    outputs: int
    distinct: int
    chosen: int
    reads_all: bool

    @classmethod
    def of_edges(cls, n_in: int, n_out: int, kept: int) -> Masks:
        """With so many edges kept beside those that leave the constant feature, at most."""
        variable = (n_in - 1) * n_out
        kept = min(kept, variable)
        distinct = min(n_out, min(kept, variable - kept) + 1)
        return cls(n_in, n_out, distinct, min(kept + distinct, variable - kept), 2 * kept >= variable)


def masked_operations(section: Section, example: Float[Tensor, "1 position d_in"], d_out: int, masks: Masks) -> int:
    """Of the evaluation on one example's features."""
    if isinstance(section, AffineSection):
        return 2 * example.shape[1] * masks.n_in * masks.outputs
    if isinstance(section, ResidualBlock):
        positions = section.positions_of(example)
        carried = 2 * len(positions.queries) * masks.n_in * masks.outputs
        return carried + sum(masked_branch_operations(branch, positions, masks) for branch in section.branches)
    # A pass for every mask, from features and to a feature.
    n_queries = example.shape[1]
    of_mask = 2 * example.numel() * masks.n_in + section.forward_operations(example)
    return masks.distinct * of_mask + 2 * n_queries * d_out * masks.outputs


def masked_branch_operations(branch: AddedBranch, positions: Positions, masks: Masks) -> int:
    """What masks keep or leave out is read; of what is written, a column for each output."""
    n_queries = len(positions.queries)
    n_read = n_queries if branch.position_wise else positions.count
    width = branch.read_weight.shape[1]
    if branch.read_normalisation is not None:
        width += branch.read_normalisation.width
    reading = 2 * n_read * width * (masks.chosen + masks.reads_all * masks.n_in)
    written = 2 * n_queries * len(branch.write_weight) * masks.outputs
    return reading + masks.distinct * branch.between_operations(positions) + written
