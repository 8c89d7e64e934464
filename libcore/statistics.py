"""Means and Grams of every node layer, streamed (METHOD.md eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from libcore.chain import Chain
from libcore.constant import with_constant
from libcore.integers import ScaledIntegers
from libcore.streams import ActivationStream, float64_zeros, rows_per_chunk


@dataclass(frozen=True)
class LayerStatistics:
    """First two moments of one node layer's activations over data and positions, float64.

    Attributes:
        mean: `E[f]`, `[d]`; 1 in the constant coordinate.
        gram: `E[(f - mu)^T (f - mu)]`, `[d, d]`, every coordinate centred but the constant one.
        count: how many activations (examples times positions) were averaged.
        isolated: coordinates that are features of their own whatever they are correlated with, such as the scale of
            a normalisation.
    """

    mean: Float[Tensor, " d"]
    gram: Float[Tensor, "d d"]
    count: int
    isolated: tuple[int, ...] = ()


ROWS_PER_SUM = 512
"""Activations per Gram product. Short sums lose less: in products over this few rows, merged, a Gram's round-off is
3e-17 of its largest eigenvalue, where one product over 11,490 rows has 3e-15 (measured on the null directions of
`blocks.0.hook_resid_pre` in modular addition). That level decides which directions can be told from zero."""


COLUMNS_PER_BLOCK = 512
"""Columns of a Gram computed at a time: only blocks on and above the diagonal, the others are their mirror images."""


class RunningMoments:
    """Sum and scatter of rows as they come in, about the mean of the first of them."""

    def __init__(self, example: Float[Tensor, "*batch d"], has_constant: bool) -> None:
        d = example.shape[-1]
        self.centre = float64_zeros(d, like=example)
        self.sum = float64_zeros(d, like=example)
        self.scatter = float64_zeros(d, d, like=example)
        self.count = 0
        self.has_constant = has_constant

    def add(self, rows: Float[Tensor, "sample d"]) -> None:
        """Take further rows in; only the scatter's upper blocks are kept up."""
        rows = rows.double()
        if self.count == 0:
            self.centre = rows.mean(0)
            if self.has_constant:
                self.centre[-1] = 0.0  # the constant coordinate is not centred
        centred = rows - self.centre
        self.sum += centred.sum(0)
        add_upper_blocks(self.scatter, centred)
        self.count += len(rows)

    def statistics(self) -> LayerStatistics:
        """The moments so far."""
        upper = self.scatter.triu()
        scatter = (upper + upper.triu(1).T).addr_(self.sum, self.sum, alpha=-1 / self.count)
        mean = self.centre + self.sum / self.count
        if self.has_constant:
            mean[-1] = 1.0
            scatter[-1], scatter[:, -1] = 0.0, 0.0
            scatter[-1, -1] = self.scatter[-1, -1]
        return LayerStatistics(mean, scatter / self.count, self.count)


class IntegerMoments:
    """Sum and scatter of inputs that are small integers, exact."""

    def __init__(self, integers: ScaledIntegers, example: Tensor) -> None:
        self.integers = integers
        d = example.flatten(1).shape[1]
        self.sum = torch.zeros(d, dtype=torch.float64, device=integers.device)
        self.scatter = torch.zeros(d, d, dtype=torch.float64, device=integers.device)
        self.count = 0

    def add(self, inputs: Tensor) -> None:
        """Take further inputs in."""
        for some in inputs.split(self.integers.rows_per_product):
            centred = self.integers.about_the_middle(some)
            self.sum += centred.sum(0)
            add_upper_blocks(self.scatter, centred)
            self.count += len(some)

    def statistics(self) -> LayerStatistics:
        """The moments so far of the activation, the constant coordinate last.

        Divisions come last: until then all numbers are integers, exact up to 2**53.
        """
        upper, unit = self.scatter.triu(), 1 / self.integers.largest
        scatter = (upper + upper.triu(1).T).mul_(self.count).addr_(self.sum, self.sum, alpha=-1)
        gram = pad(scatter.mul_((unit / self.count) ** 2), (0, 1, 0, 1))
        gram[-1, -1] = 1.0
        mean = (self.sum / self.count + self.integers.middle) * unit
        return LayerStatistics(with_constant(mean), gram, self.count)


def add_upper_blocks(scatter: Float[Tensor, "d d"], centred: Float[Tensor, "sample d"]) -> None:
    """Add `centred^T centred`, blocks on and above the diagonal.

    A product of its own, then added: begun from the sum so far, its every step would round at the sum's size.
    """
    for start in range(0, len(scatter), COLUMNS_PER_BLOCK):
        columns = slice(start, start + COLUMNS_PER_BLOCK)
        scatter[columns, start:] += centred[:, columns].T @ centred[:, start:]


def layer_statistics(stream: ActivationStream, has_constant: bool = True) -> LayerStatistics:
    """Mean and Gram of a stream of activations."""
    example = stream.example()
    moments = RunningMoments(example, has_constant)
    for activation in stream.chunks(3 * example.numel() + example.shape[-1]):
        for rows in activation.flatten(0, 1).split(ROWS_PER_SUM):
            moments.add(rows)
    return moments.statistics()


def statistics_of(activation: Float[Tensor, "sample d"], has_constant: bool) -> LayerStatistics:
    """Mean and Gram of activations held in memory."""
    moments = RunningMoments(activation, has_constant)
    moments.add(activation)
    return moments.statistics()


@torch.no_grad()
def chain_statistics(chain: Chain, inputs: Tensor, memory_budget: int) -> dict[str, LayerStatistics]:
    """Statistics of every node layer on `inputs`, by name, from one pass through the model.

    Raises ValueError as `Chain.checked` does.
    """
    examples = list(chain.checked(chain.activations(inputs[:1])))
    moments = {
        layer: RunningMoments(example, chain.has_constant(layer))
        for layer, example in zip(chain.node_layers, examples, strict=True)
    }
    integers = None
    if isinstance(chain.embed, ScaledIntegers) and not chain.before:
        integers = IntegerMoments(chain.embed, inputs[:1])
        del moments[chain.node_layers[0]]
    values = max(chain.values_to_produce(inputs, len(chain.sections)), *(3 * one.numel() for one in examples))
    for start in range(0, len(inputs), chunk := rows_per_chunk(values, memory_budget)):
        some = inputs[start : start + chunk]
        if integers is not None:
            integers.add(some)
        for layer, activation in zip(chain.node_layers, chain.activations(some), strict=True):
            if layer in moments:
                for rows in activation.flatten(0, 1).split(ROWS_PER_SUM):
                    moments[layer].add(rows)
            chain.on_chunk(layer, start + len(some), len(inputs))
    found = {layer: of.statistics() for layer, of in moments.items()}
    if integers is not None:
        found[chain.node_layers[0]] = integers.statistics()
    return {layer: replace(found[layer], isolated=chain.isolated.get(layer, ())) for layer in chain.node_layers}
