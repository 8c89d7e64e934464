"""Where mixings of all node layers start from: by gauge, from LIB's own features or from features turned at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.basis import Basis
from libcore.gauge.mixing import FreeMixings, Gauge, Mixings, Rotations
from libcore.methods.random import generator_of, random_rotation


def all_starts(
    gauge: Gauge | Literal["chosen"],
    node_layers: Sequence[str],
    bases: Mapping[str, Basis],
    mixed: Mapping[str, Int[Tensor, " leading"]],
    n_random: int,
    seed: int,
) -> Iterator[dict[str, Mixings]]:
    """Mixings of the features `mixed` of every node layer, starting from the identity, then from rotations at random.

    `chosen`: both starts in LIB's gauge, then the identity in the whitened one. `node_layers` end at the output.
    """
    for one, n_of_gauge in random_starts_by_gauge(gauge, n_random).items():
        for number in range(1 + n_of_gauge):
            yield {
                layer: mixings_of(
                    one if layer not in node_layers[-2:] else before_the_output(one, layer == node_layers[-1]),
                    bases[layer].importance[columns],
                    rotation_to_start_from(columns, f"{number}/{layer}" if number else None, seed),
                )
                for layer, columns in mixed.items()
            }


def random_starts_by_gauge(gauge: Gauge | Literal["chosen"], n_random: int) -> dict[Gauge, int]:
    """How many starts at random each gauge has, beside the identity."""
    return {"lib": n_random, "whitened": 0} if gauge == "chosen" else {gauge: n_random}


def number_of_starts(gauge: Gauge | Literal["chosen"], n_random: int) -> int:
    """How many `all_starts` are."""
    return sum(1 + n_of_gauge for n_of_gauge in random_starts_by_gauge(gauge, n_random).values())


def before_the_output(gauge: Gauge, is_output: bool) -> Gauge:
    """The layer before the output stays in LIB's gauge where others are whitened: its scale says how strongly logits
    depend on it. The output itself is only ever rotated."""
    return "lib" if is_output or gauge == "whitened" else gauge


def mixings_of(gauge: Gauge, importance: Float[Tensor, " k"], start: Float[Tensor, "k k"]) -> Mixings:
    """All mixings of the gauge, of LIB features of this importance."""
    if gauge == "free":
        return FreeMixings(start)
    return Rotations(start, importance.rsqrt() if gauge == "whitened" else None)


def rotation_to_start_from(columns: Int[Tensor, " k"], name: str | None, seed: int) -> Float[Tensor, "k k"]:
    """The identity; with a name one drawn at random, by name and seed."""
    n = len(columns)
    if name is None:
        return torch.eye(n, dtype=torch.float64, device=columns.device)
    return random_rotation(n, generator_of(name, seed)).to(columns.device)
