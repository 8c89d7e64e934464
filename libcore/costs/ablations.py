"""What scores and ablations take at most, from the shapes of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libcore.ablation.masked_scores import bytes_held
from libcore.ablation.node import NUMBERS_AT_A_TIME
from libcore.ablation.plan import most_numbers
from libcore.ablation.schedule import ladder
from libcore.ablation.whole_model import Ablated
from libcore.costs.cost import Cost
from libcore.costs.passes import Passes
from libcore.costs.shapes import ChainShapes
from libcore.sections.masked_operations import Masks, masked_operations

EVERYTHING = Ablated()


@dataclass(frozen=True)
class Evaluated:
    """Data that a model is scored on, and how.

    Attributes:
        n_examples: of the test split.
        memory_budget, disk_room: bytes of a chunk's working set, and of activations on disk.
        tolerances: of needed counts.
        which: what is ablated, and how features are looked for.
    """

    n_examples: int
    memory_budget: int
    disk_room: int = 0
    tolerances: Sequence[float] = ()
    which: Ablated = EVERYTHING


def score_cost(shapes: ChainShapes, n_examples: int, memory_budget: int) -> Cost:
    """A pass through the model."""
    operations = n_examples * (shapes.forward() + shapes.to_output)
    return Cost({shapes.dtype: operations}, min(memory_budget, 16 * shapes.alive * n_examples), 0)


def node_ablation_cost(shapes: ChainShapes, data: Evaluated, layers: Sequence[int], features: Sequence[int]) -> Cost:
    """Of these node layers, by number: a pass from each for every number of features."""
    passes = Passes.of(shapes, data.n_examples, data.memory_budget, data.disk_room)
    operations = passes.holding() if layers else 0
    for index in layers:
        k, example = features[index], shapes.examples[index]
        evaluations, kept, at_a_time = most_numbers(k, data.tolerances, data.which), k, 1
        if data.which.every_number:
            kept, at_a_time = k // 2, NUMBERS_AT_A_TIME
        once = passes.reading(index) + data.n_examples * 2 * example.numel() * kept
        rest = shapes.through(index) + shapes.to_output
        each = data.n_examples * (2 * example.numel() * kept + rest)
        operations += evaluations * each + -(-evaluations // at_a_time) * once
    return Cost({shapes.dtype: operations}, data.memory_budget, passes.on_disk, at_most=True)


def edge_ablation_cost(shapes: ChainShapes, data: Evaluated, layers: Sequence[int], features: Sequence[int]) -> Cost:
    """Of the edges behind these node layers, by number: the bisection's evaluations."""
    passes = Passes.of(shapes, data.n_examples, data.memory_budget, data.disk_room)
    operations, memory = passes.holding() if layers else 0, 0
    for index in layers:
        pair = EdgePair.of(shapes, data, index, features)
        once = passes.reading(index) + data.n_examples * pair.features()
        numbers = list(pair.evaluations(len(data.tolerances)))
        operations += once if pair.held else once * len(numbers)
        operations += data.n_examples * sum(pair.evaluation(masks) for masks in numbers)
        memory = max(memory, pair.memory())
    return Cost({shapes.dtype: operations}, data.memory_budget + memory, passes.on_disk, at_most=True)


@dataclass(frozen=True)
class EdgePair:
    """A layer pair whose edges are masked.

    Attributes:
        held: whether features are, and an output whose mask is that of the evaluation before is not evaluated again.
    """

    shapes: ChainShapes
    index: int
    n_in: int
    n_out: int
    held: bool

    @classmethod
    def of(cls, shapes: ChainShapes, data: Evaluated, index: int, features: Sequence[int]) -> EdgePair:
        """As `masked_scores` chooses."""
        example, following = shapes.examples[index : index + 2]
        n_in, n_out = features[index : index + 2]
        held = bytes_held(data.n_examples, example, following.shape[1], n_in, n_out)
        return cls(shapes, index, n_in, n_out, held <= data.memory_budget // 2)

    def features(self) -> int:
        """Operations of an example's."""
        return 2 * self.shapes.examples[self.index].numel() * self.n_in

    def evaluation(self, masks: Masks) -> int:
        """Operations on one example: the pair by its masks, and the rest of the model."""
        example, following = self.shapes.examples[self.index : self.index + 2]
        of_pair = masked_operations(self.shapes.sections[self.index], example, following.shape[-1], masks)
        rest = self.shapes.through(self.index + 1) + self.shapes.to_output
        return of_pair + 2 * following.numel() * self.n_out + rest

    def evaluations(self, n_tolerances: int) -> list[Masks]:
        """Of the bisection at most: from one edge to all, then halving the upper half for every tolerance.

        What is left of a bracket is at most as many outputs that have another mask than before.
        """
        if not n_tolerances:
            return []
        widths = self.shapes.widths[self.index : self.index + 2]
        upper, n_edges = widths[0] * widths[1], self.n_in * self.n_out
        found = [Masks.of_edges(self.n_in, self.n_out, kept) for kept in [*ladder(upper), n_edges]]
        half, bracket = Masks.of_edges(self.n_in, self.n_out, n_edges // 2), upper // 2
        while bracket > 1:
            changed = min(self.n_out, bracket) if self.held else self.n_out
            chosen = half.chosen * changed // self.n_out
            found += [Masks(self.n_in, changed, min(changed, half.distinct), chosen, reads_all=True)] * n_tolerances
            bracket -= bracket // 2
        return found

    def memory(self) -> int:
        """Bytes beside chunks: edges sorted, the mask, the residual stream's part, weights in feature coordinates."""
        section = self.shapes.sections[self.index]
        size = self.shapes.examples[self.index].element_size()
        found = (8 * 3 + 1 + 2 * size) * self.n_in * self.n_out
        for branch in getattr(section, "branches", ()):
            found += size * (2 * self.n_in * branch.read_weight.shape[1] + len(branch.write_weight) * self.n_out)
        return found
