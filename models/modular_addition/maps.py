"""What features of modular addition respond to: a map of the activation on every pair of numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from models.analysed import FeaturePicture
from models.modular_addition.data import all_pairs

MAPPED_FEATURES = 64
"""Features of each node layer, the constant included, that maps are drawn of."""
LEVELS = 16
"""Shades on either side of zero: enough to see waves, and files stay small."""
HIGH, LOW = (213, 94, 0), (0, 114, 178)
"""Red, green, blue of the largest magnitude above and below zero; white is zero."""


@torch.no_grad()
def activation_maps(
    chain: Chain, bases: dict[str, Basis], modulus: int, device: torch.device
) -> dict[str, list[FeaturePicture]]:
    """Maps of each node layer's first `MAPPED_FEATURES` features, at the position where each varies most.

    The constant feature, equal on all pairs, has none.
    """
    tokens = all_pairs(modulus).tokens.to(device)
    pictures: dict[str, list[FeaturePicture]] = {}
    for layer, activation in zip(chain.node_layers, chain.activations(tokens), strict=True):
        basis = bases[layer].to(device=device, dtype=activation.dtype)
        features = (activation @ basis.to_basis[:, :MAPPED_FEATURES]).unflatten(0, (modulus, modulus))
        position = features.flatten(0, 1).var(0).argmax(0)
        chosen = features.gather(2, position[None, None, None].expand(modulus, modulus, 1, -1))[:, :, 0]
        maps = coloured(chosen.movedim(-1, 0).cpu())
        pictures[layer] = [
            FeaturePicture((), (), None, map=None if basis.has_constant and feature == 0 else image)
            for feature, image in enumerate(maps)
        ]
    return pictures


def coloured(values: Float[Tensor, "feature x y"]) -> UInt8[Tensor, "feature x y 3"]:
    """Each feature's values as colours, relative to its largest magnitude."""
    magnitude = values.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    share = ((values / magnitude * LEVELS).round() / LEVELS)[..., None]
    end = torch.where(share > 0, torch.tensor(HIGH, dtype=values.dtype), torch.tensor(LOW, dtype=values.dtype))
    return (255 + share.abs() * (end - 255)).round().to(torch.uint8)
