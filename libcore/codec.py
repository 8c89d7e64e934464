"""Bases and moments as named tensors, and back: one way for graph files, cached stages and bases from elsewhere.

`mean/<layer>` `[d]`, `gram/<layer>` `[d, d]`, `to_basis/<layer>` `[d, k]`, `from_basis/<layer>` `[k, d]`,
`importance/<layer>` `[k]` or longer, `edges/<layer>` `[k_next, k]`, `moved/<layer>`, `moved_in_group/<layer>` and
`group/<layer>` `[k]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from libcore.basis import Basis
from libcore.identification import Movement
from libcore.statistics import LayerStatistics

Tensors = dict[str, Tensor]
OF_STATISTICS = ("mean", "gram")
OF_BASES = ("to_basis", "from_basis", "importance")
OF_MOVEMENTS = {"moved": "alone", "moved_in_group": "in_group", "group": "group"}


def tensors_of_statistics(statistics: Mapping[str, LayerStatistics]) -> Tensors:
    """Means and Grams; counts and isolated coordinates are no tensors (`values_of_statistics`)."""
    return {f"{kind}/{layer}": getattr(of, kind) for layer, of in statistics.items() for kind in OF_STATISTICS}


def values_of_statistics(statistics: Mapping[str, LayerStatistics]) -> dict[str, Any]:
    """What is not a tensor, as JSON."""
    return {
        "count": {layer: of.count for layer, of in statistics.items()},
        "isolated": {layer: list(of.isolated) for layer, of in statistics.items()},
    }


def statistics_from(tensors: Tensors, values: Mapping[str, Any], layers: Iterable[str]) -> dict[str, LayerStatistics]:
    """Of these node layers; raises KeyError for a tensor that is missing."""
    return {
        layer: LayerStatistics(
            tensors[f"mean/{layer}"],
            tensors[f"gram/{layer}"],
            values["count"][layer],
            tuple(values["isolated"].get(layer, ())),
        )
        for layer in layers
    }


def tensors_of_bases(bases: Mapping[str, Basis]) -> Tensors:
    """Both matrices and the importance of every basis."""
    return {f"{kind}/{layer}": getattr(basis, kind) for layer, basis in bases.items() for kind in OF_BASES}


def bases_from(tensors: Tensors, has_constant: Callable[[str], bool], layers: Iterable[str]) -> dict[str, Basis]:
    """Of these node layers; raises KeyError for a tensor that is missing."""
    return {
        layer: Basis(*(tensors[f"{kind}/{layer}"] for kind in OF_BASES), has_constant=has_constant(layer))
        for layer in layers
    }


def tensors_of_edges(edges: Mapping[str, Tensor]) -> Tensors:
    """The strengths of every layer pair with edges."""
    return {f"edges/{layer}": strength for layer, strength in edges.items()}


def edges_from(tensors: Tensors, layers: Iterable[str]) -> Tensors:
    """By the node layer that they leave; those that are there."""
    return {layer: tensors[f"edges/{layer}"] for layer in layers if f"edges/{layer}" in tensors}


def tensors_of_movements(movements: Mapping[str, Movement]) -> Tensors:
    """How far every feature moves if it is fitted again; groups as floating-point numbers, as all else in a file."""
    return {
        f"{kind}/{layer}": getattr(moved, name).double()
        for layer, moved in movements.items()
        for kind, name in OF_MOVEMENTS.items()
    }


def movements_from(tensors: Tensors, layers: Iterable[str]) -> dict[str, Movement]:
    """Of those node layers that have them."""
    found = {
        layer: tuple(tensors[f"{kind}/{layer}"] for kind in OF_MOVEMENTS)
        for layer in layers
        if all(f"{kind}/{layer}" in tensors for kind in OF_MOVEMENTS)
    }
    return {layer: Movement(alone, in_group, group.long()) for layer, (alone, in_group, group) in found.items()}
