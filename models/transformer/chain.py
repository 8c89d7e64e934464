"""Any decoder as a chain of sections between the node layers asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.chain import Chain
from libcore.constant import with_constant
from libcore.sections import Section, compose
from models.transformer.architecture import Architecture, Weights
from models.transformer.block_sections import BlockSections
from models.transformer.node_layers import OUTPUT, all_node_layers, canonical, node_layers_of, path_between, resolve


def chain_of(
    architecture: Architecture,
    weights: Weights,
    dtype: torch.dtype,
    device: torch.device,
    node_layers: Sequence[str] | None = None,
) -> Chain:
    """A decoder as sections: one where the two node layers allow it (with closed forms), a composition otherwise.

    The scale of a normalisation, where it is a coordinate, stays a feature of its own in every basis.

    Args:
        architecture: what the weights belong to.
        weights: with the names and shapes of `architecture.weight_shapes()`.
        dtype: of all sections.
        device: where they compute.
        node_layers: names or patterns (see `resolve`), by default the residual stream before, within and after all
            blocks, with the final normalisation and the unembedding as the chain's tail.

    Raises ValueError for a name or pattern that matches nothing, and for fewer than two node layers.
    """
    names = resolve(node_layers, architecture)
    weights = {name: weight.detach().to(device=device, dtype=dtype) for name, weight in weights.items()}
    sections = BlockSections(architecture, weights)

    def steps(start: str, end: str) -> tuple[Section, ...]:
        return tuple(sections.between(*step) for step in path_between(architecture, start, end))

    kinds = {layer.name: layer.kind for layer in node_layers_of(architecture)}
    layers = [canonical(name, architecture) for name in names]
    return Chain(
        node_layers=names,
        sections=tuple(compose(steps(start, end)) for start, end in pairwise(layers)),
        embed=embedding(architecture, weights),
        last_has_constant=layers[-1] != OUTPUT,
        tail=None if layers[-1] == OUTPUT else compose(steps(layers[-1], OUTPUT)),
        before=steps(all_node_layers(architecture)[0], layers[0]),
        isolated={
            name: (architecture.d_model,) for name, layer in zip(names, layers, strict=True) if kinds[layer] == "scale"
        },
    )


def embedding(
    architecture: Architecture, weights: Weights
) -> Callable[[Int[Tensor, "batch position"]], Float[Tensor, "batch position d"]]:
    """From tokens to the first residual stream, the constant coordinate last."""
    tokens_to_stream, positions = weights["embed.W_E"], weights.get("pos_embed.W_pos")

    def embed(tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position d"]:
        """Raises ValueError for sequences longer than the model's context."""
        length = tokens.shape[1]
        if length > architecture.n_context:
            raise ValueError(f"sequences of {length} tokens; expected at most {architecture.n_context}, the context")
        residual = tokens_to_stream[tokens]
        if positions is not None:
            residual = residual + positions[:length]
        return with_constant(residual)

    return embed
