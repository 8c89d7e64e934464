"""Where mixings of all node layers start from: by gauge, from LIB's own features or from features turned at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.basis import Basis
from libcore.gauge.mixing import FreeMixings, Gauge, Mixings, Rotations
from libcore.methods.random import generator_of, haar_rotation


def starts(
    gauge: Gauge,
    node_layers: Sequence[str],
    bases: Mapping[str, Basis],
    mixed: Mapping[str, Int[Tensor, " leading"]],
    n_random: int,
    seed: int,
) -> Iterator[dict[str, Mixings]]:
    """The identity, and then rotations drawn at random, for the features `mixed` of every node layer that has some.

    `node_layers` end at the output. The layer before it stays in LIB's gauge where others are whitened: its scale says
    how strongly a logit depends on it. The output itself, where it is mixed, is rotated.
    """
    for number in range(1 + n_random):
        families: dict[str, Mixings] = {}
        for layer, columns in mixed.items():
            importance = bases[layer].importance[columns]
            start = torch.eye(len(columns), dtype=torch.float64, device=importance.device)
            if number > 0:
                normal = torch.randn(
                    start.shape, generator=generator_of(f"{number}/{layer}", seed), dtype=torch.float64
                )
                start = haar_rotation(normal).to(importance.device)
            in_lib = gauge == "lib" or (gauge == "whitened" and layer in node_layers[-2:]) or layer == node_layers[-1]
            if gauge == "free" and not in_lib:
                families[layer] = FreeMixings(start)
            else:
                families[layer] = Rotations(start, None if in_lib else importance.rsqrt())
        yield families
