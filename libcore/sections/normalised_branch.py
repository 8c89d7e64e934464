"""A branch whose output is normalised before it is added to the residual stream."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from libcore.sections.branch import AddedBranch, Positions
from libcore.sections.normalisation import Normalisation


class NormalisedBranch(AddedBranch):
    """`f -> gain * n(branch(f) + bias)`, coordinates behind the residual stream's zero. It is differentiated.

    Args:
        branch: writes the residual stream's coordinates, and others behind them that are not used.
        bias: of the branch, reads the constant coordinate.
        normalisation: `n`; a bias of its own belongs into the block's residual part.
        gain: of the normalisation.
        d_out: of the output.
    """

    def __init__(
        self,
        branch: AddedBranch,
        bias: Float[Tensor, " width"],
        normalisation: Normalisation,
        gain: Float[Tensor, " width"],
        d_out: int,
    ) -> None:
        self.branch = branch
        self.bias = bias
        self.normalisation = normalisation
        self.to_output = pad(gain.diag(), (0, d_out - normalisation.width))

    def __call__(
        self, activation: Float[Tensor, "batch position d_in"], positions: Positions
    ) -> Float[Tensor, "batch query d_out"]:
        return self.normalisation.of_output(self.added(activation, positions)) @ self.to_output

    def added(
        self, activation: Float[Tensor, "batch position d_in"], positions: Positions
    ) -> Float[Tensor, "batch query width"]:
        """What is normalised."""
        of_branch = self.branch(activation, positions)[..., : self.normalisation.width]
        return of_branch + positions.at_queries(activation)[..., -1:] * self.bias

    @property
    def read_normalisation(self) -> Normalisation | None:
        return self.branch.read_normalisation

    @property
    def read_weight(self) -> Float[Tensor, "d_in read"]:
        return self.branch.read_weight

    def between(
        self,
        read: Float[Tensor, "batch position read"],
        constant: Float[Tensor, "batch position"],
        positions: Positions,
    ) -> Float[Tensor, "batch query width"]:
        of_branch = self.branch.between(read, constant, positions)
        if not self.branch.position_wise:
            constant = positions.at_queries(constant)
        added = of_branch @ self.branch.write_weight[:, : self.normalisation.width] + constant[..., None] * self.bias
        return self.normalisation.of_output(added)

    @property
    def write_weight(self) -> Float[Tensor, "width d_out"]:
        return self.to_output

    def forward_values(self, positions: int, queries: int) -> int:
        width, d_out = self.to_output.shape
        return self.branch.forward_values(positions, queries) + queries * (4 * width + d_out)

    def forward_operations(self, positions: Positions) -> int:
        return self.branch.forward_operations(positions) + 2 * len(positions.queries) * self.to_output.numel()

    def between_operations(self, positions: Positions) -> int:
        written = len(self.branch.write_weight) * len(self.to_output)
        return self.branch.between_operations(positions) + 2 * len(positions.queries) * written
