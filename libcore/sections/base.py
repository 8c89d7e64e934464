"""A section: the function from one node layer's activation to the next one's (METHOD.md 1).

Activations are `[batch, position, d]`, the constant coordinate (always 1) last. Biases are folded into the weights
that read the constant coordinate, so that scaling the whole activation to zero scales the biases to zero too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from libcore.basis import Basis
from libcore.jacobian_factor import JacobianFactor
from libcore.quadrature import Quadrature
from libcore.sections.operations import Operations, counted
from libcore.streams import ActivationStream

Moved = TypeVar("Moved", bound="Movable")


class Movable:
    """Made of tensors and other movables, as attributes; never changed in place."""

    def to(self: Moved, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Moved:
        """A copy with all tensors moved."""
        moved = object.__new__(type(self))
        for name, value in vars(self).items():
            setattr(moved, name, moved_to(value, device, dtype))
        return moved


class Section(Movable, ABC):
    """Function between two node layers."""

    @abstractmethod
    def __call__(self, activation: Float[Tensor, "batch position d_in"]) -> Float[Tensor, "batch position_out d_out"]:
        """Next node layer's activation, constant coordinate included on both sides."""

    def forward_values(self, example: Float[Tensor, "1 position d_in"]) -> int:
        """Numbers alive per example in a forward pass."""
        return 2 * (example.numel() + self(example).numel())

    def forward_operations(self, example: Float[Tensor, "1 position d_in"]) -> int:
        """Of a pass on one example, in matrix products; counted where nothing is known."""
        with torch.no_grad():
            return counted(lambda: self(example))


def columns(weight: Float[Tensor, "*rest d_out"], outputs: Int[Tensor, " some"] | None) -> Float[Tensor, "*rest some"]:
    """Those that write the chosen outputs."""
    return weight if outputs is None else weight[..., outputs]


def moved_to(value: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """Tensors and what is made of them on the other device, in the other dtype; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, Movable):
        return value.to(device=device, dtype=dtype)
    if isinstance(value, tuple):
        return tuple(moved_to(entry, device, dtype) for entry in value)
    return value


@runtime_checkable
class ClosedForm(Protocol):
    """A section whose Jacobian Gram and edges need no differentiation (METHOD.md 5)."""

    def closed_form_jacobian_gram(
        self,
        stream: ActivationStream,
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> Float[Tensor, "d_in d_in"]:
        """`M'` of METHOD.md eq. 4, in float64."""
        ...

    def closed_form_edges(
        self,
        stream: ActivationStream,
        basis: Basis,
        next_basis: Basis,
        quadrature: Quadrature,
    ) -> Float[Tensor, "feature_out feature_in"]:
        """`E` of METHOD.md eq. 8, in float64."""
        ...


@runtime_checkable
class CountedForm(Protocol):
    """A closed form that says how many operations it takes."""

    def gram_operations(self, example: Float[Tensor, "1 position d_in"], n_out: int, n_points: int) -> Operations:
        """Of the Jacobian Gram into `n_out` features, at so many points of the path."""
        ...

    def gram_memory(self, example: Float[Tensor, "1 position d_in"], n_out: int, n_points: int) -> tuple[int, int]:
        """Numbers alive for every example of a chunk, and beside those for every share of the chunks."""
        ...

    def edge_operations(
        self,
        example: Float[Tensor, "1 position d_in"],
        n_in: int,
        n_out: int,
        n_points: int,
        n_examples: int,
        memory_budget: int,
    ) -> Operations:
        """Of edges between so many features; few examples, and a large budget, have more positions taken together."""
        ...

    def edge_memory(
        self, example: Float[Tensor, "1 position d_in"], n_in: int, n_out: int, n_points: int
    ) -> tuple[int, int]:
        """Numbers alive for every example of a chunk of edges, and beside those whatever the number of examples."""
        ...


@runtime_checkable
class FactoredJacobian(Protocol):
    """A closed form whose Jacobian Gram has few columns: no array is as large as the Gram itself."""

    def jacobian_factor(
        self, stream: ActivationStream, next_basis: Basis, quadrature: Quadrature
    ) -> JacobianFactor | None:
        """`M'` of METHOD.md eq. 4 by its factors; None where they are no smaller than it."""
        ...


@runtime_checkable
class MaskedEvaluation(Protocol):
    """Output features, each from its own masked inputs."""

    def __call__(
        self, mask: Bool[Tensor, "some feature_in"], outputs: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "batch position_out some"]:
        """Output feature `outputs[i]`, `i` itself by default, from the inputs `mask[i]`."""
        ...


@runtime_checkable
class FastMaskedEvaluation(Protocol):
    """A section that evaluates every output feature on its own masked inputs faster than one mask at a time."""

    def masked_evaluation(
        self,
        features: Float[Tensor, "batch position feature_in"],
        basis: Basis,
        next_basis: Basis,
        memory_budget: int,
    ) -> MaskedEvaluation:
        """The evaluation by mask on these features; what does not depend on the mask is computed here, once."""
        ...


@runtime_checkable
class LinearFirst(Protocol):
    """A section that begins with a linear map: `section(f) = after_linear(f @ linear)`."""

    @property
    def linear(self) -> Float[Tensor, "d_in width"]:
        """The linear map."""
        ...

    def after_linear(self, projected: Float[Tensor, "batch position width"]) -> Float[Tensor, "batch position d_out"]:
        """The rest of the section."""
        ...


@runtime_checkable
class LinearLast(Protocol):
    """A section that ends with a linear map, into which a further one can be taken."""

    @property
    def weights_written(self) -> int:
        """Multiplications per output position in what it ends with."""
        ...

    def followed_by(self: Moved, weight: Float[Tensor, "d_out d_further"]) -> Moved:
        """`f -> section(f) @ weight`."""
        ...


KeptOutputs = Callable[[int, int], Iterator[Tensor]]
"""`(start, stop)` -> for each number in turn, the section's output on these examples with so many features kept."""


KeptEvaluation = Callable[[Sequence[int]], KeptOutputs]
"""A section with only the first features kept of the layer before it, for ascending numbers of them.

What does not depend on the examples is computed here, once. An output is used before the next is asked for, which may
take its place in memory.
"""


@runtime_checkable
class FastKeptEvaluation(Protocol):
    """A section that may know a faster way than a pass for each number of kept features."""

    def kept_evaluation(self, stream: ActivationStream, basis: Basis) -> KeptEvaluation | None:
        """On these activations; None where it does not pay."""
        ...


class FunctionSection(Section):
    """A section that knows nothing about itself and is therefore differentiated.

    Args:
        function: reads the constant coordinate wherever it adds a bias, and carries it. A module adds its biases
            without it, so that a module raises ValueError: `libcore.from_module.section_of` folds them.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        if isinstance(function, nn.Module):
            raise ValueError(
                f"FunctionSection({type(function).__name__}): a module's biases would not scale with the constant "
                "coordinate; expected libcore.from_module.section_of(module, example)"
            )
        self.function = function

    def __call__(self, activation: Tensor) -> Tensor:
        return self.function(activation)
