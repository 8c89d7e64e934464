"""Scores with the edges of one layer pair masked, for many masks in turn (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.ablation.evaluation import EvaluationData
from libcore.ablation.examples import Block, Examples, sums
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections import AffineSection, MaskedEvaluation, Section, compose
from libcore.sections.masked import masked_evaluation
from libcore.sections.merging import merged
from libcore.streams import ActivationStream

FeaturesOf = Callable[[int, int], Tensor]
"""`(start, stop) -> features of the next node layer of these examples, counted among all`."""


def masked_scores(
    chain: Chain,
    data: EvaluationData,
    index: int,
    bases: tuple[Basis, Basis],
    memory_budget: int,
    stream: ActivationStream | None = None,
) -> Callable[[Tensor], float]:
    """Scores by the mask of the edges behind node layer number `index`.

    Where the features of all examples and the outputs of the last mask fit into half of the budget they are held, and
    an output feature whose mask is that of the call before is not evaluated again.
    """
    stream = stream or chain.stream(data.inputs, index, memory_budget)
    pair = MaskedPair(chain.sections[index], stream, bases, memory_budget)
    held = pair.held_bytes() <= memory_budget // 2
    left = memory_budget - pair.held_bytes() if held else memory_budget
    examples = Examples.of(chain, data.inputs, index, left // 2, stream)
    pair.memory_budget = left // 2 // len(examples.parts)
    output_of = compose(merged((AffineSection(bases[1].from_basis), *chain.sections_from(index + 1))))

    parts: Sequence[HeldPart | None] = [None] * len(examples.parts)
    if held:
        parts = examples.in_parts(lambda part, blocks: HeldPart(pair, blocks, part), examples.parts)

    def score(mask: Tensor) -> float:
        passing = None if held else pair.masked(mask)  # one for all threads

        def of_part(part: HeldPart | None, blocks: Iterator[Block]) -> list[float]:
            features_of = passing if part is None else part.masked(mask)
            assert features_of is not None
            return [sum(data.score_sum(output_of(features_of(*block)), *block) for block in blocks)]

        return sums(examples.in_parts(of_part, parts), 1)[0] / examples.count

    return score


class MaskedPair:
    """A layer pair whose edges are masked."""

    def __init__(
        self, section: Section, stream: ActivationStream, bases: tuple[Basis, Basis], memory_budget: int
    ) -> None:
        self.section = section
        self.stream = stream
        self.bases = bases
        self.memory_budget = memory_budget

    def held_bytes(self) -> int:
        """Of all features that may be held."""
        with torch.no_grad():
            example = self.stream.example()
            positions_out = self.section(example).shape[1]
        n_features = (basis.n_features for basis in self.bases)
        return bytes_held(self.stream.n_examples, example, positions_out, *n_features)

    def features(self, start: int, stop: int) -> Float[Tensor, "batch position feature_in"]:
        """Of these examples."""
        return self.bases[0].features(self.stream.produce(start, stop))

    def masked(self, mask: Bool[Tensor, "feature_out feature_in"]) -> FeaturesOf:
        """The next layer's features, computed whenever they are asked for.

        Features that no output keeps are left out: with pixels as inputs and few edges kept, that is nearly all.
        """
        pair, basis = self, self.bases[0]
        used = mask.any(0)
        used[: basis.variable.start] = True
        if not used.all():
            some = replace(basis, to_basis=basis.to_basis[:, used], from_basis=basis.from_basis[used])
            pair = MaskedPair(self.section, self.stream, (some, self.bases[1]), self.memory_budget)
            mask = mask[:, used]
        return lambda start, stop: pair.evaluation(pair.features(start, stop))(mask)

    def evaluation(self, features: Float[Tensor, "batch position feature_in"]) -> MaskedEvaluation:
        """The section by mask on examples with these features."""
        return masked_evaluation(self.section, features, *self.bases, self.memory_budget)


def bytes_held(
    n_examples: int, example: Float[Tensor, "1 position d"], positions_out: int, n_in: int, n_out: int
) -> int:
    """Of all examples' features on both sides, twice on that which is evaluated anew."""
    numbers = example.shape[1] * n_in + 2 * positions_out * n_out
    return n_examples * numbers * example.element_size()


class HeldPart:
    """One thread's examples with the outputs for the last mask."""

    def __init__(self, pair: MaskedPair, blocks: Iterator[Block], bounds: Block) -> None:
        self.bounds = bounds
        features: Tensor | None = None
        for start, stop in blocks:
            of_block = pair.features(start, stop)
            if features is None:
                features = of_block.new_empty(bounds[1] - bounds[0], *of_block.shape[1:])
            features[start - bounds[0] : stop - bounds[0]] = of_block
        assert features is not None
        self.evaluation = pair.evaluation(features)
        self.mask: Tensor | None = None
        self.outputs: Tensor | None = None

    def masked(self, mask: Bool[Tensor, "feature_out feature_in"]) -> FeaturesOf:
        """The next layer's features; what has another mask than before is evaluated."""
        if self.mask is None or self.outputs is None:
            self.outputs = self.evaluation(mask)
        else:
            changed = torch.nonzero((mask != self.mask).any(1)).flatten()
            if len(changed):
                self.outputs[..., changed] = self.evaluation(mask[changed], changed)
        self.mask = mask
        return self.features

    def features(self, start: int, stop: int) -> Float[Tensor, "batch position_out feature_out"]:
        """Of these examples, counted among all."""
        assert self.outputs is not None
        return self.outputs[start - self.bounds[0] : stop - self.bounds[0]]
