"""The examples at both ends of every feature: where its activation is highest and where it is lowest (METHOD.md 4).

One pass over the inputs, chunk by chunk, for all features of all node layers; only a few numbers per feature are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.streams import rows_per_chunk


@dataclass(frozen=True)
class Extremes:
    """Each feature's examples at one end of its range, the most extreme first.

    Attributes:
        values: activations in float32, at the example's extreme position.
        examples: numbers of the inputs.
        positions: where in the input; of equal ones any.
    """

    values: Float[Tensor, "feature n"]
    examples: Int64[Tensor, "feature n"]
    positions: Int64[Tensor, "feature n"]

    def cpu(self) -> Extremes:
        """A copy in main memory."""
        return Extremes(self.values.cpu(), self.examples.cpu(), self.positions.cpu())

    def first(self, n: int) -> Extremes:
        """The first `n` of every feature, all where there are fewer."""
        return Extremes(self.values[:, :n], self.examples[:, :n], self.positions[:, :n])


@dataclass(frozen=True)
class TopExamples:
    """Both ends of every feature of one node layer."""

    highest: Extremes
    lowest: Extremes

    def cpu(self) -> TopExamples:
        """A copy in main memory."""
        return TopExamples(self.highest.cpu(), self.lowest.cpu())


@torch.no_grad()
def top_examples(
    chain: Chain, bases: dict[str, Basis], inputs: Tensor, n: int, memory_budget: int
) -> dict[str, TopExamples]:
    """The `n` examples with the highest and with the lowest activation of every kept feature, by node layer.

    Where a layer has several positions, an example counts by its extreme one.

    Args:
        chain: its `embed` takes `inputs`; features are computed in its dtype and on its device.
        bases: of every node layer.
        inputs: all are searched.
        n: examples at either end; all inputs, where there are fewer.
        memory_budget: bytes that one chunk's activations and features may take.
    """
    found: dict[str, TopExamples] = {}
    for start, layer, features in features_in_chunks(chain, bases, inputs, memory_budget):
        highest, lowest = (extremes_of(features, start, n, largest) for largest in (True, False))
        if layer in found:
            highest = merged(found[layer].highest, highest, n, largest=True)
            lowest = merged(found[layer].lowest, lowest, n, largest=False)
        found[layer] = TopExamples(highest, lowest)
    return found


@torch.no_grad()
def highest_positions(chain: Chain, bases: dict[str, Basis], inputs: Tensor, memory_budget: int) -> dict[str, Extremes]:
    """Every example, in order, at each feature's highest position in it, by node layer and in main memory.

    Takes what `top_examples` takes; `n` of the result is the number of inputs.
    """
    chunks: dict[str, list[Extremes]] = {layer: [] for layer in chain.node_layers}
    for start, layer, features in features_in_chunks(chain, bases, inputs, memory_budget):
        values, positions = (found.T.cpu() for found in features.max(dim=1))
        examples = torch.arange(start, start + len(features)).expand_as(values)
        chunks[layer].append(Extremes(values.float(), examples, positions))
    return {
        layer: Extremes(
            torch.cat([one.values for one in of_layer], 1),
            torch.cat([one.examples for one in of_layer], 1),
            torch.cat([one.positions for one in of_layer], 1),
        )
        for layer, of_layer in chunks.items()
    }


def features_in_chunks(
    chain: Chain, bases: dict[str, Basis], inputs: Tensor, memory_budget: int
) -> Iterator[tuple[int, str, Float[Tensor, "batch position feature"]]]:
    """First example of a chunk, node layer, features: all layers of all chunks."""
    one = chain.activation(inputs[:1], 0)
    bases = {layer: bases[layer].to(device=one.device, dtype=one.dtype) for layer in chain.node_layers}
    size = rows_per_chunk(values_per_example(chain, bases, inputs), memory_budget)
    for start in range(0, len(inputs), size):
        for layer, activation in zip(chain.node_layers, chain.activations(inputs[start : start + size]), strict=True):
            yield start, layer, bases[layer].features(activation)


def values_per_example(chain: Chain, bases: dict[str, Basis], inputs: Tensor) -> int:
    """Numbers alive per example where they are most: in a section, or with features, extremes and a sorted copy."""
    most, activation = chain.values_to_produce(inputs, len(chain.sections)), chain.activation(inputs[:1], 0)
    for index, layer in enumerate(chain.node_layers):
        if index:
            activation = chain.sections[index - 1](activation)
        most = max(most, activation.numel() + 3 * activation.shape[1] * bases[layer].n_features)
    return most


def extremes_of(
    features: Float[Tensor, "batch position feature"], first_example: int, n: int, largest: bool
) -> Extremes:
    """The extremes of one chunk, whose first example has this number."""
    over_positions = features.max(dim=1) if largest else features.min(dim=1)
    values, order = over_positions.values.T.topk(min(n, len(features)), dim=1, largest=largest)
    return Extremes(values.float(), order + first_example, over_positions.indices.T.gather(1, order))


def merged(first: Extremes, second: Extremes, n: int, largest: bool) -> Extremes:
    """The extremes of two chunks together."""
    values = torch.cat([first.values, second.values], dim=1)
    values, order = values.topk(min(n, values.shape[1]), dim=1, largest=largest)
    examples = torch.cat([first.examples, second.examples], dim=1).gather(1, order)
    return Extremes(values, examples, torch.cat([first.positions, second.positions], dim=1).gather(1, order))
