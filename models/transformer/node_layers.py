"""Node layers of a decoder by their TransformerLens hook names, and which section leads from one to the next.

| node layer | activation | beside it |
|---|---|---|
| `blocks.{i}.hook_resid_pre` | `[x, 1]` | residual stream before attention (before the block, if it is parallel) |
| `blocks.{i}.ln1.hook_scale` | `[x, 1 / σ, 1]` | what the normalisation multiplies by, a feature of its own |
| `blocks.{i}.ln1.hook_normalized` | `[x, x_hat, 1]` | what attention reads (a parallel MLP too) before gain and bias |
| `blocks.{i}.hook_resid_mid` | `[x, 1]` | residual stream between attention and the MLP |
| `blocks.{i}.ln2.hook_scale`, `.hook_normalized` | as above | what the MLP reads |
| `blocks.{i}.mlp.hook_post` | `[x, hidden, 1]` | hidden activations; `x` includes attention's output already |
| `blocks.{L-1}.hook_resid_post` | `[x, 1]` | residual stream after the last block |
| `ln_final.hook_scale`, `.hook_normalized` | as above | what the unembedding reads |
| `output` | logits | no constant coordinate |

`blocks.{i}.hook_resid_post` of an earlier block is another name of `blocks.{i + 1}.hook_resid_pre`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.node_layer_selection import select_names
from models.transformer.architecture import Architecture

Kind = Literal["residual", "scale", "normalized", "hidden", "output"]
Module = Literal["attn", "mlp", "parallel", "unembed"]
OUTPUT = "output"


@dataclass(frozen=True)
class NodeLayer:
    """One node layer.

    Attributes:
        name: TransformerLens's.
        kind: what its activation holds.
        module: what reads it next; the activation is on the way into that module, or inside it. The logits are read by
            nothing: their module is the one that writes them.
        block: the block's number, the number of blocks for all that comes after them.
    """

    name: str
    kind: Kind
    module: Module
    block: int


def node_layers_of(architecture: Architecture) -> tuple[NodeLayer, ...]:
    """All of them, in the model's order."""
    layers: list[NodeLayer] = []
    for block in range(architecture.n_layers):
        prefix = f"blocks.{block}"
        # A block without an MLP has nothing beside attention, as a parallel block has nothing after it.
        first: Module = "parallel" if architecture.parallel or not architecture.has_mlp else "attn"
        layers.append(NodeLayer(f"{prefix}.hook_resid_pre", "residual", first, block))
        layers += normalisation_layers(architecture.normalisation, f"{prefix}.ln1", first, block)
        if first == "attn":
            layers.append(NodeLayer(f"{prefix}.hook_resid_mid", "residual", "mlp", block))
            layers += normalisation_layers(architecture.normalisation, f"{prefix}.ln2", "mlp", block)
        if architecture.has_mlp:
            layers.append(NodeLayer(f"{prefix}.mlp.hook_post", "hidden", "mlp", block))
    after = architecture.n_layers
    layers.append(NodeLayer(f"blocks.{after - 1}.hook_resid_post", "residual", "unembed", after))
    layers += normalisation_layers(architecture.final_normalisation, "ln_final", "unembed", after)
    return (*layers, NodeLayer(OUTPUT, "output", "unembed", after))


def normalisation_layers(normalisation: str, prefix: str, module: Module, block: int) -> list[NodeLayer]:
    """A normalisation's scale and its output; nothing where there is none."""
    if normalisation == "none":
        return []
    kinds: tuple[Kind, Kind] = ("scale", "normalized")
    return [NodeLayer(f"{prefix}.hook_{kind}", kind, module, block) for kind in kinds]


def is_one_section(start: NodeLayer, end: NodeLayer) -> bool:
    """Whether a single section leads from one node layer to a later one.

    A residual stream or what was made of it for a module leads to every later stage of that module and to the residual
    stream behind it; a scale leads to the activations it scales and nowhere else.
    """
    if start.kind == "scale":
        return end.kind == "normalized" and (end.block, end.module) == (start.block, start.module)
    inside = start.block == end.block and end.kind != "residual"
    if start.module == "attn":
        return start.block == end.block and (end.kind == "residual" or (inside and end.module == "attn"))
    begins_next = end.block == start.block + 1 and end.kind == "residual" and end.module != "mlp"
    return inside or begins_next


def path_between(architecture: Architecture, start: str, end: str) -> list[tuple[NodeLayer, NodeLayer]]:
    """The fewest steps of one section each that lead from one node layer to a later one."""
    layers = node_layers_of(architecture)
    names = [layer.name for layer in layers]
    at, goal = names.index(start), names.index(end)
    steps: list[tuple[NodeLayer, NodeLayer]] = []
    while at < goal:
        furthest = max(i for i in range(at + 1, goal + 1) if is_one_section(layers[at], layers[i]))
        steps.append((layers[at], layers[furthest]))
        at = furthest
    return steps


def all_node_layers(architecture: Architecture) -> tuple[str, ...]:
    """Names of all node layers in the model's order, the logits last."""
    return tuple(layer.name for layer in node_layers_of(architecture))


def default_node_layers(architecture: Architecture) -> tuple[str, ...]:
    """The residual stream before, within and after all blocks."""
    return tuple(layer.name for layer in node_layers_of(architecture) if layer.kind == "residual")


def canonical(name: str, architecture: Architecture) -> str:
    """The name that `all_node_layers` has for a node layer given by any of its names."""
    return other_names(architecture).get(name, name)


def other_names(architecture: Architecture) -> dict[str, str]:
    """The residual stream after a block is the one before the next."""
    return {f"blocks.{i}.hook_resid_post": f"blocks.{i + 1}.hook_resid_pre" for i in range(architecture.n_layers - 1)}


def resolve(chosen: Sequence[str] | None, architecture: Architecture) -> tuple[str, ...]:
    """Node layers by name or pattern (`blocks.*.hook_resid_mid`) in the model's order; None for the default.

    A node layer with two names goes by the one it is asked for. Raises ValueError (see `select_names`).
    """
    if chosen is None:
        return default_node_layers(architecture)
    return select_names(chosen, all_node_layers(architecture), other_names(architecture))
