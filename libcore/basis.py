"""A basis of one node layer: the coordinates `fhat = f @ to_basis` that a method writes activations in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.eigen import signs_of


@dataclass(frozen=True)
class Basis:
    """Features of one node layer, sorted by importance, the constant feature first where there is one.

    Attributes:
        to_basis: `C`, `[d, k]`; row-vector convention, `fhat = f @ C`.
        from_basis: `C⁺`, `[k, d]`; `f ≈ fhat @ C⁺`.
        importance: `[k]` or longer: what the method sorts by, for all directions in its order, dropped ones last
            (METHOD.md eq. 5: `Λ`; PCA: variance).
        has_constant: feature 0 is the constant.
    """

    to_basis: Float[Tensor, "d k"]
    from_basis: Float[Tensor, "k d"]
    importance: Float[Tensor, " n"]
    has_constant: bool

    @property
    def d(self) -> int:
        """Coordinates of the activation, the constant included."""
        return self.to_basis.shape[0]

    @property
    def n_features(self) -> int:
        """Kept features, the constant included."""
        return self.to_basis.shape[1]

    @property
    def variable(self) -> slice:
        """The features that vary: all but the constant. An index into anything that has one entry per feature."""
        return slice(int(self.has_constant), None)

    @property
    def n_variable(self) -> int:
        """How many features vary."""
        return self.n_features - self.variable.start

    def to(self, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Basis:
        """A copy on another device or in another dtype."""
        return Basis(
            self.to_basis.to(device=device, dtype=dtype),
            self.from_basis.to(device=device, dtype=dtype),
            self.importance.to(device=device, dtype=dtype),
            self.has_constant,
        )

    def double(self) -> Basis:
        """A copy in float64."""
        return self.to(dtype=torch.float64)

    def features(self, activation: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch position k"]:
        """Feature activations."""
        return activation @ self.to_basis

    def activation(self, features: Float[Tensor, "*batch position k"]) -> Float[Tensor, "*batch position d"]:
        """The activation that feature activations stand for."""
        return features @ self.from_basis

    def keep_first(self, activation: Float[Tensor, "batch position d"], n: int) -> Float[Tensor, "batch position d"]:
        """The activation with all but the first `n` features set to zero (METHOD.md 4)."""
        return activation @ self.to_basis[:, :n] @ self.from_basis[:n]


def in_order(basis: Basis, order: Int[Tensor, " varying"]) -> Basis:
    """The features that vary in another order, each direction's entry of largest magnitude made positive.

    Args:
        order: their numbers, the constant feature not counted, which stays the first.
    """
    first, chosen = basis.variable.start, basis.variable.start + order
    signs = signs_of(basis.to_basis[: basis.d - first, chosen])
    return Basis(
        torch.cat([basis.to_basis[:, :first], basis.to_basis[:, chosen] * signs], 1),
        torch.cat([basis.from_basis[:first], basis.from_basis[chosen] * signs[:, None]]),
        torch.cat([basis.importance[:first], basis.importance[chosen], basis.importance[basis.n_features :]]),
        basis.has_constant,
    )


def identity_basis(variance: Float[Tensor, " d"], has_constant: bool) -> Basis:
    """The neuron basis in the neurons' own order; `importance` is each one's variance."""
    identity = torch.eye(len(variance), dtype=variance.dtype, device=variance.device)
    return Basis(identity, identity.clone(), variance, has_constant)
