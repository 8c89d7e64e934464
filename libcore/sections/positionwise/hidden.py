"""What lies between a branch's two weights: the hidden activations and their derivative by the pre-activations.

Every pre-activation feeds one hidden activation: column `j` feeds number `j % d_hidden`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.sections.base import Movable
from libcore.sections.positionwise.elementwise import ActivationFunction, elementwise_derivative


class Hidden(Movable, ABC):
    """A function of pre-activations."""

    pre_activations_per_hidden = 1

    @abstractmethod
    def __call__(self, pre_activation: Float[Tensor, "*batch pre"]) -> Float[Tensor, "*batch hidden"]:
        """Hidden activations."""

    @abstractmethod
    def derivative(self, pre_activation: Float[Tensor, "*batch pre"]) -> Float[Tensor, "*batch pre"]:
        """Of the one hidden activation that each pre-activation feeds, by that pre-activation."""


class Elementwise(Hidden):
    """`φ(u)`: an ungated MLP."""

    def __init__(self, activation_function: ActivationFunction) -> None:
        self.activation_function = activation_function

    def __call__(self, pre_activation: Tensor) -> Tensor:
        return self.activation_function(pre_activation)

    def derivative(self, pre_activation: Tensor) -> Tensor:
        return elementwise_derivative(self.activation_function, pre_activation)


class Gated(Hidden):
    """`φ(gate) * linear`: a gated MLP; pre-activations are `[gate, linear]`."""

    pre_activations_per_hidden = 2

    def __init__(self, activation_function: ActivationFunction) -> None:
        self.activation_function = activation_function

    def __call__(self, pre_activation: Tensor) -> Tensor:
        gate, linear = pre_activation.chunk(2, dim=-1)
        return self.activation_function(gate) * linear

    def derivative(self, pre_activation: Tensor) -> Tensor:
        gate, linear = pre_activation.chunk(2, dim=-1)
        by_gate = elementwise_derivative(self.activation_function, gate) * linear
        return torch.cat([by_gate, self.activation_function(gate)], dim=-1)


class Linear(Hidden):
    """The pre-activations themselves: a normalisation followed by a linear map, such as the unembedding."""

    def __call__(self, pre_activation: Tensor) -> Tensor:
        return pre_activation

    def derivative(self, pre_activation: Tensor) -> Tensor:
        return torch.ones_like(pre_activation)
