"""What is timed: a model with its data, and which part of them the straightforward way is timed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from libcore.ablation import EvaluationData
from libcore.chain import Chain
from libcore.fit_settings import FitSettings


@dataclass(frozen=True)
class Slices:
    """What the straightforward way is timed on; scaled up linearly from there.

    Attributes:
        fit: examples of Jacobian Grams and edges.
        ablation: examples of ablations.
        layers: node layers, by number, in which all backward passes are carried out and their result compared; None for
            all. In the others a few are timed.
        tokens: so many of each sequence are compared, and a few passes timed in all layers; None for whole sequences.
    """

    fit: int
    ablation: int
    layers: tuple[int, ...] | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        name: in tables.
        described: where its weights and its data come from.
        chain: by dtype, on the device that everything is timed on.
        inputs: what bases and edges are fitted on.
        test: what is ablated on.
        tolerances: of ablations, in the score's units.
        settings: of the fit.
        slices: of the straightforward way.
        ablated: node layers by number.
    """

    name: str
    described: str
    chain: Callable[[torch.dtype], Chain]
    inputs: Tensor
    test: EvaluationData
    tolerances: tuple[float, ...]
    settings: FitSettings
    slices: Slices
    ablated: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Of the data, hence of everything."""
        return self.inputs.device


@torch.no_grad()
def named_by_the_model(chain: Chain, inputs: Tensor) -> Tensor:
    """What the model itself takes for most likely, `[example, position_out]`: labels under which it is always right."""
    return torch.cat([chain.output_from(chain.activation(some, 0), 0).argmax(-1) for some in inputs.split(64)])
