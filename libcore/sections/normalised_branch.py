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
        self.gain = gain
        self.d_out = d_out

    def __call__(
        self, activation: Float[Tensor, "batch position d_in"], positions: Positions
    ) -> Float[Tensor, "batch query d_out"]:
        width = self.normalisation.width
        added = self.branch(activation, positions)[..., :width]
        added = added + positions.at_queries(activation)[..., -1:] * self.bias
        normalised = self.normalisation.centre(added) * self.normalisation.inverse_scale(added) * self.gain
        return pad(normalised, (0, self.d_out - width))

    def forward_values(self, positions: int, queries: int) -> int:
        return self.branch.forward_values(positions, queries) + queries * (4 * self.normalisation.width + self.d_out)
