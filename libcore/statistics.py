"""Means and Grams of every node layer, streamed (METHOD.md eq. 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from libcore import processes
from libcore.chain import Chain
from libcore.constant import with_constant
from libcore.integers import ScaledIntegers
from libcore.numerical_errors import NumericalError, all_finite, first_not_finite_in, not_finite_on
from libcore.parallel import in_threads, one_thread, shares_for, threads_for
from libcore.streams import ActivationStream, rows_per_chunk, unwatched


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


BYTES_OF_SHARED_GRAMS = 2**23
"""Of all node layers together: every share has its own."""


class Moments(ABC):
    """Sum and scatter of what has come in, about some centre, and how many there were."""

    def __init__(self, d: int, device: torch.device) -> None:
        self.sum: Tensor = torch.zeros(d, dtype=torch.float64, device=device)
        self.scatter: Tensor = torch.zeros(d, d, dtype=torch.float64, device=device)
        self.count: int = 0

    @abstractmethod
    def statistics(self) -> LayerStatistics:
        """The moments so far."""

    def whole_scatter(self) -> Float[Tensor, "d d"]:
        """With the lower blocks, mirror images of those that are kept up; a copy."""
        upper = self.scatter.triu()
        return upper + upper.triu(1).T

    def merge(self, other: Moments) -> None:
        """Take in what another has, about the same centre."""
        self.sum += other.sum
        self.scatter += other.scatter
        self.count += other.count


class RunningMoments(Moments):
    """Of rows, about the mean of some of them.

    Args:
        centre: that mean; rounding grows with how far it is off that of all.
        has_constant: whether the last coordinate is the constant one, which is not centred.
    """

    def __init__(self, centre: Float[Tensor, " d"], has_constant: bool) -> None:
        super().__init__(len(centre), centre.device)
        self.centre = centre.detach().double().clone()
        if has_constant:
            self.centre[-1] = 0.0
        self.has_constant = has_constant

    def add(self, activation: Float[Tensor, "*batch d"]) -> None:
        """Take further rows in; only the scatter's upper blocks are kept up."""
        for rows in activation.reshape(-1, len(self.centre)).split(ROWS_PER_SUM):
            centred = rows.double() - self.centre
            self.sum += centred.sum(0)
            add_upper_blocks(self.scatter, centred)
            self.count += len(rows)

    def statistics(self) -> LayerStatistics:
        """The moments so far."""
        scatter = self.whole_scatter().addr_(self.sum, self.sum, alpha=-1 / self.count)
        mean = self.centre + self.sum / self.count
        if self.has_constant:
            mean[-1] = 1.0
            scatter[-1], scatter[:, -1] = 0.0, 0.0
            scatter[-1, -1] = self.scatter[-1, -1]
        return LayerStatistics(mean, scatter / self.count, self.count)


class IntegerMoments(Moments):
    """Of inputs that are small integers, exact."""

    def __init__(self, integers: ScaledIntegers, example: Tensor) -> None:
        super().__init__(example.flatten(1).shape[1], integers.device)
        self.integers = integers

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
        unit = 1 / self.integers.largest
        scatter = self.whole_scatter().mul_(self.count).addr_(self.sum, self.sum, alpha=-1)
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


def statistics_of(activation: Float[Tensor, "sample d"], has_constant: bool) -> LayerStatistics:
    """Mean and Gram of activations held in memory."""
    moments = RunningMoments(activation.double().mean(0), has_constant)
    moments.add(activation)
    return moments.statistics()


def chain_statistics(chain: Chain, inputs: Tensor, memory_budget: int) -> dict[str, LayerStatistics]:
    """Statistics of every node layer on `inputs`, by name, from one pass through the model.

    Threads take shares of the chunks, unless Grams are so wide that a product is worth sharing among them. Raises
    ValueError as `Chain.checked` does, NumericalError where activations or their products are not finite.
    """
    with torch.no_grad():
        examples = list(chain.checked(chain.activations(inputs[:1])))
    of_grams = sum(8 * example.shape[-1] ** 2 for example in examples)
    n_threads = 1 if of_grams > BYTES_OF_SHARED_GRAMS else min(threads_for(inputs), len(inputs))
    n_shares = shares_for(n_threads, len(inputs))
    values = max(chain.values_to_produce(inputs, len(chain.sections)), *(3 * one.numel() for one in examples))
    chunk = min(rows_per_chunk(values, memory_budget // n_threads), -(-len(inputs) // n_shares))

    # About the mean of as many rows as a sum has: what it is off by is then nothing beside a sum's own round-off.
    of_centre = min(chunk, max(1, ROWS_PER_SUM // min(example.shape[1] for example in examples)))
    with torch.no_grad(), one_thread():
        centres = [activation.double().mean((0, 1)) for activation in chain.activations(inputs[:of_centre])]

    def moments_of(number: int, check: Callable[[], None]) -> dict[str, Moments]:
        with torch.no_grad():
            moments = empty_moments(chain, inputs, centres)
            for start in range(number * chunk, len(inputs), n_shares * chunk):
                check()
                add_inputs(chain, moments, inputs[start : start + chunk])
                for layer in chain.node_layers:
                    chain.on_chunk(layer, min(start + chunk, len(inputs)), len(inputs))
        return moments

    of_own = in_threads(moments_of, processes.own(n_shares), inputs.is_cuda)
    first, *others = processes.gathered(of_own, n_shares)
    for moments in others:
        for layer in chain.node_layers:
            first[layer].merge(moments[layer])
    statistics = {
        layer: replace(first[layer].statistics(), isolated=chain.isolated.get(layer, ())) for layer in chain.node_layers
    }
    for index, layer in enumerate(chain.node_layers):
        if not all_finite(statistics[layer].mean, statistics[layer].gram):
            raise not_finite(replace(chain, on_chunk=unwatched).stream(inputs, index, memory_budget))
    return statistics


def not_finite(stream: ActivationStream) -> NumericalError:
    """What is wrong with a node layer whose moments are not finite: the first example, or how large activations are."""
    done, largest = 0, 0.0
    for activation in stream.chunks(2 * stream.example().numel()):
        if (example := first_not_finite_in(activation)) is not None:
            return not_finite_on(stream.name, done + example, stream.n_examples)
        done, largest = done + len(activation), max(largest, activation.abs().max().item())
    return NumericalError(f"{stream.name}: activations reach {largest:.2g}, whose products are not finite")


def empty_moments(chain: Chain, inputs: Tensor, centres: Sequence[Tensor]) -> dict[str, Moments]:
    """By node layer, about these centres."""
    moments: dict[str, Moments] = {
        layer: RunningMoments(centre, chain.has_constant(layer))
        for layer, centre in zip(chain.node_layers, centres, strict=True)
    }
    if isinstance(chain.embed, ScaledIntegers) and not chain.before:
        moments[chain.node_layers[0]] = IntegerMoments(chain.embed, inputs[:1])
    return moments


def add_inputs(chain: Chain, moments: dict[str, Moments], inputs: Tensor) -> None:
    """Take further inputs in, from one pass through the model."""
    for layer, activation in zip(chain.node_layers, chain.activations(inputs), strict=True):
        of_layer = moments[layer]
        if isinstance(of_layer, IntegerMoments):
            of_layer.add(inputs)
        else:
            assert isinstance(of_layer, RunningMoments)
            of_layer.add(activation)
