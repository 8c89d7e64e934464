"""Each stage against the straightforward way on a slice of the data: seconds scaled up, and how far both are apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from experiments.benchmarks.stages import Stages
from experiments.benchmarks.straightforward import (
    edges_by_backward_passes,
    jacobian_gram_by_backward_passes,
    statistics_of_all,
)
from experiments.benchmarks.straightforward_ablation import edge_curve, node_scores
from experiments.benchmarks.timing import synchronise
from libcore.ablation import unablated_score
from libcore.basis import Basis
from libcore.estimators import edges, jacobian_gram
from libcore.methods.lib import lib_basis
from libcore.quadrature import GRADIENT
from libcore.statistics import chain_statistics
from libcore.streams import ActivationStream

Result = TypeVar("Result")
COMPARED_SCORES = 5
"""Of an edge ablation's evaluations."""
PASSES = 64
"""Backward passes that are timed in the node layers where not all are."""


@dataclass(frozen=True)
class Comparison:
    """The straightforward way.

    Attributes:
        seconds: of the whole stage, scaled up from the slice.
        measured_seconds: on the slice.
        slice: what it was timed on, in words.
        difference: of the results on the slice, relative to the largest number.
    """

    seconds: float
    measured_seconds: float
    slice: str
    difference: float


class Straightforward:
    """The straightforward way through all stages of one case, which have been carried out."""

    def __init__(self, stages: Stages) -> None:
        self.stages, self.case = stages, stages.case
        self.chain = stages.case.chain(torch.float64)
        self.inputs = stages.case.inputs[: stages.case.slices.fit]
        self.scale = len(stages.case.inputs) / len(self.inputs)
        self.compared = self.inputs[:, : stages.case.slices.tokens] if stages.case.slices.tokens else self.inputs
        self.whole = stages.case.slices.layers or tuple(range(len(self.chain.sections)))

    def compare(self, stage: str) -> Comparison:
        """One stage."""
        return {
            "statistics": self.statistics,
            "basis": self.basis,
            "edges": self.edges,
            "node ablation": self.node_ablation,
            "edge ablation": self.edge_ablation,
        }[stage]()

    def statistics(self) -> Comparison:
        """A pass through the model, then whole Grams."""
        found, seconds = self.timed(lambda: statistics_of_all(self.chain, self.inputs))
        expected = chain_statistics(self.chain, self.inputs, self.case.settings.memory_budget)
        apart = max(difference(found[layer].gram, expected[layer].gram) for layer in found)
        return Comparison(seconds * self.scale, seconds, self.fit_slice(of_passes=False), apart)

    def basis(self) -> Comparison:
        """Jacobian Grams by backward passes, then whitening and two eigenproblems a layer, whatever the data."""
        passes, fixed, taken, apart = 0.0, 0.0, 0.0, 0.0
        for index, section in enumerate(self.chain.sections):
            layer, next_basis = self.chain.node_layers[index], self.stages.bases[self.chain.node_layers[index + 1]]
            gram, seconds, scale = self.passes(index, jacobian_gram_by_backward_passes, next_basis)
            settings = (self.case.settings.truncation, torch.float64)
            moments = self.stages.statistics[layer]
            _, of_basis = self.timed(lib_basis, moments, moments.gram if gram is None else gram, *settings)
            if gram is not None:
                expected = jacobian_gram(section, self.compared_stream(index), next_basis, GRADIENT)
                apart = max(apart, difference(expected, gram))
            passes, fixed, taken = passes + seconds * scale, fixed + of_basis, taken + seconds + of_basis
        return Comparison(passes * self.scale + fixed, taken, self.fit_slice(), apart)

    def edges(self) -> Comparison:
        """Attributions by backward passes."""
        passes, taken, apart = 0.0, 0.0, 0.0
        for index, section in enumerate(self.chain.sections):
            basis, next_basis = (self.stages.bases[layer] for layer in self.chain.node_layers[index : index + 2])
            found, seconds, scale = self.passes(index, edges_by_backward_passes, basis, next_basis)
            if found is not None:
                expected = edges(section, self.compared_stream(index), basis, next_basis, GRADIENT)
                apart = max(apart, difference(expected, found))
            passes, taken = passes + seconds * scale, taken + seconds
        return Comparison(passes * self.scale, taken, self.fit_slice(), apart)

    def passes(self, index: int, compute: Callable[..., Tensor], *bases: Basis) -> tuple[Tensor | None, float, float]:
        """Result on what is compared, seconds, and what these are multiplied by: a few passes alone may be timed."""
        section, activation = self.chain.sections[index], self.activation(index, self.inputs)
        is_compared = index in self.whole
        if is_compared and self.compared is self.inputs:
            return *self.timed(compute, section, activation, *bases), 1.0
        with torch.no_grad():
            n_passes = section(activation[:1]).shape[1] * bases[-1].n_features
        at_most = min(PASSES, n_passes)
        _, seconds = self.timed(compute, section, activation, *bases, at_most)
        found = compute(section, self.activation(index, self.compared), *bases) if is_compared else None
        return found, seconds, n_passes / at_most

    def node_ablation(self) -> Comparison:
        """A full pass for every number of features that the stage evaluates."""
        sliced, chain = self.sliced(), self.case.chain(self.stages.ablation_dtype)
        seconds, apart = 0.0, 0.0
        for index, _ in sliced.ablated_layers():
            numbers = sorted(self.stages.node_curve(index).score_by_kept)
            basis = sliced.ablation_bases(index)[0]
            found, taken = self.timed(node_scores, chain, sliced.case.test, index, basis, numbers)
            expected = sliced.node_curve(index, numbers).score_by_kept
            apart = max([apart, *(abs(found[kept] - expected[kept]) / max(1.0, abs(found[kept])) for kept in numbers)])
            seconds += taken
        return Comparison(seconds * self.ablation_scale, seconds, self.ablation_slice(), apart)

    def edge_ablation(self) -> Comparison:
        """Every output feature by its own masked pass, numbers of edges bisected from above; no matter which."""
        sliced, chain = self.sliced(), self.case.chain(self.stages.ablation_dtype)
        seconds, apart = 0.0, 0.0
        for index, layer in sliced.ablated_layers():
            rest = (sliced.ablation_bases(index), self.stages.edges[layer], self.case.tolerances, sliced.test_score)
            found, taken = self.timed(edge_curve, chain, sliced.case.test, index, *rest)
            # Bisections from above and from below need not have tried one number both.
            tried = list(found.score_by_kept)[:COMPARED_SCORES]
            expected = sliced.edge_scores(index, tried)
            scores = ((found.score_by_kept[kept], expected[kept]) for kept in tried)
            apart = max([apart, *(abs(one - other) / max(1.0, abs(one)) for one, other in scores)])
            seconds += taken
        return Comparison(seconds * self.ablation_scale, seconds, self.ablation_slice(), apart)

    def sliced(self) -> Stages:
        """The same on fewer examples to ablate on."""
        case = replace(self.case, test=self.case.test.first(self.case.slices.ablation))
        sliced = replace(self.stages, case=case)
        sliced.test_score = unablated_score(
            case.chain(self.stages.ablation_dtype), case.test, case.settings.memory_budget
        )
        return sliced

    @property
    def ablation_scale(self) -> float:
        """Examples of the stage over those of the slice."""
        return len(self.case.test.inputs) / len(self.case.test.inputs[: self.case.slices.ablation])

    def activation(self, index: int, inputs: Tensor) -> Tensor:
        """Of node layer number `index`."""
        with torch.no_grad():
            return self.chain.activation(inputs, index)

    def compared_stream(self, index: int) -> ActivationStream:
        """The same as a stream, of what is compared."""
        return self.chain.stream(self.compared, index, self.case.settings.memory_budget)

    def timed(self, compute: Callable[..., Result], *arguments: Any) -> tuple[Result, float]:
        """Result and seconds of one run."""
        synchronise(self.case.device)
        start = time.perf_counter()
        result = compute(*arguments)
        synchronise(self.case.device)
        return result, time.perf_counter() - start

    def fit_slice(self, of_passes: bool = True) -> str:
        """`10 of 50 examples, 64 backward passes in 8 of 10 layer pairs`."""
        text, n_sections = f"{len(self.inputs)} of {len(self.case.inputs)} examples", len(self.chain.sections)
        n_whole = len(self.whole) if self.compared is self.inputs else 0
        if of_passes and n_whole < n_sections:
            text += f", {PASSES} backward passes in {n_sections - n_whole} of {n_sections} layer pairs"
        if of_passes and self.compared is not self.inputs:
            text += f", compared on {self.compared.shape[1]} tokens"
        return text

    def ablation_slice(self) -> str:
        """Likewise."""
        n_test = len(self.case.test.inputs)
        return f"{min(self.case.slices.ablation, n_test)} of {n_test} examples"


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest one, relative to the largest number."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
