"""Inputs in two parts, one to fit on and one to choose on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputParts:
    """Inputs that have none in common, each part in an order drawn at random.

    Attributes:
        to_fit: what bases, Jacobians and rotations come from.
        to_choose: what candidates are compared on.
    """

    to_fit: Tensor
    to_choose: Tensor


def split_inputs(inputs: Tensor, choose_share: float, seed: int) -> InputParts:
    """The parts, by the seed; raises ValueError where one would be empty."""
    n_choose = round(choose_share * len(inputs))
    if not 0 < n_choose < len(inputs):
        raise ValueError(
            f"choose_share={choose_share} of {len(inputs)} inputs: {n_choose} to choose on and "
            f"{len(inputs) - n_choose} to fit on; expected some of both"
        )
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed)).to(inputs.device)
    return InputParts(inputs[order[n_choose:]], inputs[order[:n_choose]])
