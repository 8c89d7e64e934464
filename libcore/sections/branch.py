"""A branch beside the residual stream: attention or an MLP, with or without a normalisation in front.

A block's closed forms are put together from its branches: each adds up its own Jacobian Gram `sum J J^T` chunk by
chunk (METHOD.md 5), says what its Jacobians within one position sum to, which is where the residual stream and other
branches meet it, and gives its part of the attributions (eq. 7). A block with a branch that has none (an `AddedBranch`
alone) is differentiated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections.base import Movable
from libcore.sections.normalisation import Normalisation
from libcore.sections.operations import Operations

DenseJacobian = Callable[[], Float[Tensor, "sample d_in feature_out"]]
"""A chunk's Jacobians `d fhat_t / d f_t` within each output position, in full."""


@dataclass(frozen=True)
class Positions:
    """Output positions `queries`, and input positions `keys`; whether the former are all the latter, in order."""

    queries: Int[Tensor, " query"]
    keys: Int[Tensor, " key"]
    all_positions: bool = False

    @classmethod
    def of(cls, count: int, queries: tuple[int, ...] | None, device: torch.device) -> Positions:
        """All positions, or those given, negative ones counted from the end; IndexError for one that is not there."""
        chosen = range(count) if queries is None else [range(count)[position] for position in queries]
        return cls(torch.tensor(list(chosen), device=device), torch.arange(count, device=device), queries is None)

    @property
    def count(self) -> int:
        """Input positions."""
        return len(self.keys)

    def at_queries(self, activation: Float[Tensor, "batch position *rest"]) -> Float[Tensor, "batch query *rest"]:
        """What is at the output positions; no copy where those are all."""
        return activation if self.all_positions else activation[:, self.queries]

    def own(self) -> tuple[Int[Tensor, " own"], Int[Tensor, " own"]]:
        """Rows of `queries` and of `keys` that are the same position."""
        row, column = torch.nonzero(self.queries[:, None] == self.keys[None, :], as_tuple=True)
        return row, column


class JacobianSums(ABC):
    """A branch's Jacobian into the next layer's features, summed over chunks, float64."""

    @abstractmethod
    def add(self, activation: Float[Tensor, "batch position d_in"], positions: Positions) -> DenseJacobian:
        """Take a chunk in."""

    @abstractmethod
    def gram(self) -> Float[Tensor, "d_in d_in"]:
        """`sum J_ts J_ts^T` over inputs, output positions `t` and input positions `s`."""

    @abstractmethod
    def transfer(self) -> Float[Tensor, "d_in feature_out"]:
        """`sum J_tt` over inputs and output positions."""


AddAttributions = Callable[[Tensor, slice], None]
"""`attribution [feature_out, batch, some, feature_in], rows` -> adds what is at these rows of the output positions.

Output features first: with positions and input features in one long dimension, a product of weights with what all of
them read runs at a third above the speed of one that has output features last."""

Attributions = Callable[[Tensor], AddAttributions]
"""`features [batch, position, feature_in] -> sum_s dfhat_t,i / dfhat_s,j fhat_s,j`, the derivative averaged along the
path from zero (METHOD.md eq. 7), float64: what the output positions share is computed here, the rest row by row."""


class AddedBranch(Movable, ABC):
    """A function of the whole activation that is added to the residual stream's part.

    It is `f -> between(n(f) @ read_weight) @ write_weight`, `n` its normalisation in front or nothing.

    Attributes:
        position_wise: whether an output position reads its own activation alone.
    """

    position_wise = False

    def __call__(
        self, activation: Float[Tensor, "batch position d_in"], positions: Positions
    ) -> Float[Tensor, "batch query d_out"]:
        """What the branch adds at the output positions."""
        here = positions.at_queries(activation) if self.position_wise else activation
        read = here if self.read_normalisation is None else self.read_normalisation(here)
        return self.between(read @ self.read_weight, here[..., -1], positions) @ self.write_weight

    @property
    def read_normalisation(self) -> Normalisation | None:
        """`n`."""
        return None

    @property
    @abstractmethod
    def read_weight(self) -> Float[Tensor, "d_in read"]:
        """All that it reads, linear but for `n`."""

    @abstractmethod
    def between(
        self,
        read: Float[Tensor, "batch position read"],
        constant: Float[Tensor, "batch position"],
        positions: Positions,
    ) -> Float[Tensor, "batch query written"]:
        """From what was read to what `write_weight` writes; read at the output positions where it is position-wise."""

    @property
    @abstractmethod
    def write_weight(self) -> Float[Tensor, "written d_out"]:
        """The linear map that it ends with."""

    @abstractmethod
    def forward_values(self, positions: int, queries: int) -> int:
        """Numbers alive per example in a forward pass."""

    def forward_operations(self, positions: Positions) -> int:
        """Of a pass on one example: what is read and what is written."""
        n_queries = len(positions.queries)
        n_read = n_queries if self.position_wise else positions.count
        return 2 * n_read * self.read_weight.numel() + 2 * n_queries * self.write_weight.numel()

    def between_operations(self, positions: Positions) -> int:
        """Of what is between reading and writing, on one example."""
        return 0


class Branch(AddedBranch):
    """One with closed forms."""

    @property
    @abstractmethod
    def writes(self) -> Float[Tensor, "*rest d_out"]:
        """The weights that it ends with."""

    @abstractmethod
    def followed_by(self, weight: Float[Tensor, "d_out d_further"]) -> Branch:
        """`f -> branch(f) @ weight`."""

    @abstractmethod
    def jacobian_sums(self, next_basis: Basis, quadrature: Quadrature) -> JacobianSums:
        """Empty sums."""

    @abstractmethod
    def jacobian_values(self, positions: int, queries: int, n_out: int, n_points: int) -> int:
        """Numbers alive per example while a chunk is taken into the sums."""

    @abstractmethod
    def gram_operations(self, positions: Positions, n_out: int, n_points: int) -> Operations:
        """Of the Jacobian Gram into `n_out` features."""

    @abstractmethod
    def dense_operations(self, positions: Positions, n_out: int, n_points: int) -> int:
        """Of one example's Jacobians in full."""

    @abstractmethod
    def gram_sums(self, positions: Positions, n_out: int, n_points: int) -> int:
        """Numbers that the Jacobian Gram's sums hold, whatever the number of examples."""

    @abstractmethod
    def attributions(
        self,
        basis: Basis,
        next_basis: Basis,
        quadrature: Quadrature,
        positions: Positions,
    ) -> Attributions:
        """The branch's part of the attributions; what does not depend on the features is computed here, once."""

    @abstractmethod
    def attribution_values(self, positions: int, queries: int, n_in: int, n_points: int) -> int:
        """Numbers alive per example while its attributions are computed, at any number of output positions."""

    @abstractmethod
    def attribution_values_per_query(self, positions: int, n_in: int) -> int:
        """Numbers alive beside those, and beside the attributions, for every output position taken at a time."""

    @abstractmethod
    def attribution_operations(
        self, positions: Positions, n_in: int, n_out: int, n_points: int, queries_at_a_time: int
    ) -> Operations:
        """Of its part of the attributions, so many output positions being taken at a time."""

    @abstractmethod
    def attribution_weights(self, positions: Positions, n_in: int, n_out: int) -> int:
        """Numbers alive beside those of any example while attributions are computed."""
