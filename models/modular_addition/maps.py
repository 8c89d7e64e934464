"""What features of modular addition respond to: a map of the activation on every pair of numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.parallel import one_thread
from models.analysed import FeaturePicture
from models.modular_addition.pair_activations import PairActivations

MAPPED_FEATURES = 64
"""Features of each node layer, the constant included, that maps are drawn of."""
LEVELS = 16
"""Shades on either side of zero: enough to see waves, and files stay small."""
HIGH, LOW = (213, 94, 0), (0, 114, 178)
"""Red, green, blue of the largest magnitude above and below zero; white is zero."""


@torch.no_grad()
def activation_maps(chain: Chain, bases: dict[str, Basis], pairs: PairActivations) -> dict[str, list[FeaturePicture]]:
    """Maps of each node layer's first `MAPPED_FEATURES` features, at the position where each varies most.

    The constant feature, equal on all pairs, has none. `pairs` are let go of.
    """
    pictures: dict[str, list[FeaturePicture]] = {}
    for layer, activation in zip(chain.node_layers, pairs.taken(chain), strict=True):
        basis = bases[layer].to(device=activation.device, dtype=activation.dtype)
        with one_thread():
            most_varied = where_most_varied(activation, basis.to_basis[:, :MAPPED_FEATURES]).cpu()
            maps = coloured(most_varied.unflatten(1, (pairs.modulus, pairs.modulus)))
        pictures[layer] = [
            FeaturePicture((), (), None, map=None if basis.has_constant and feature == 0 else image)
            for feature, image in enumerate(maps)
        ]
    return pictures


def where_most_varied(
    activation: Float[Tensor, "batch position d"], to_basis: Float[Tensor, "d feature"]
) -> Float[Tensor, "feature batch"]:
    """Each feature at the first position where its variance is largest."""
    chosen, largest = None, None
    for position in range(activation.shape[1]):
        features = (activation[:, position] @ to_basis).T.contiguous()
        variance = features.var(1)
        if chosen is None or largest is None:
            chosen, largest = features, variance
        else:
            more = variance > largest
            chosen[more], largest[more] = features[more], variance[more]
    assert chosen is not None
    return chosen


def coloured(values: Float[Tensor, "feature x y"]) -> UInt8[Tensor, "feature x y 3"]:
    """Each feature's values as colours, relative to its largest magnitude."""
    magnitude = values.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    level = (values / magnitude * LEVELS).round_().int() + LEVELS
    return palette()[level]


def palette() -> UInt8[Tensor, "level 3"]:
    """Colours of the levels from `-LEVELS` to `LEVELS`."""
    share = torch.arange(-LEVELS, LEVELS + 1).double()[:, None] / LEVELS
    end = torch.where(share > 0, torch.tensor(HIGH).double(), torch.tensor(LOW).double())
    return (255 + share.abs() * (end - 255)).round().to(torch.uint8)
