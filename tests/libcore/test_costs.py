"""What stages are said to take, against what is counted and measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from test_operation_formulas import GELU, SILU, Size, attention, block, mlp, unembedding
from tiny_models import random
from torch import Generator

from libcore.ablation import EvaluationData, accuracy, edge_ablation, node_ablation
from libcore.ablation.edge import strongest_edges
from libcore.ablation.masked_scores import masked_scores
from libcore.ablation.schedule import kept_schedule
from libcore.chain import Chain
from libcore.constant import with_constant
from libcore.costs.ablations import EdgePair, Evaluated, edge_ablation_cost, node_ablation_cost, score_cost
from libcore.costs.fitting import EIGENPROBLEM, Fit, basis_cost, edges_cost, statistics_cost
from libcore.costs.passes import Passes
from libcore.costs.shapes import ChainShapes
from libcore.fit_settings import FitSettings
from libcore.graph import interaction_edges
from libcore.held_activations import Scratch
from libcore.methods.lib import fit_lib
from libcore.sections.masked_operations import Masks
from libcore.sections.operations import counted
from libcore.statistics import chain_statistics

TOKENS, N = 7, 40
LITTLE, AMPLE = 2**15, 2**28
"""Budgets: nothing is held in the smaller one."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations of other threads are not counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Model:
    """Two blocks, of which the second is a parallel one, and logits."""

    def __init__(self, size: Size) -> None:
        embedding = random(Generator().manual_seed(0), TOKENS, size.width)
        sections = (
            block(size, attention(size, 2, rotary=True, biases=False)),
            block(size, mlp(size, SILU, biases=False)),
            block(size, attention(size), mlp(size, GELU)),
            unembedding(size),
        )
        layers = ("0.pre", "0.mid", "1.pre", "1.post", "output")
        self.chain = Chain(layers, sections, lambda tokens: with_constant(embedding[tokens]), last_has_constant=False)
        generator = Generator().manual_seed(1)
        self.inputs = torch.randint(TOKENS, (size.examples, size.positions), generator=generator)
        self.shapes = ChainShapes.of(self.chain, self.inputs)

    def fitted(self, budget: int) -> tuple[dict, dict]:
        statistics = chain_statistics(self.chain, self.inputs, budget)
        return statistics, fit_lib(self.chain, self.inputs, statistics, FitSettings(memory_budget=budget))


SIZES = [Size(16, 12, 0, N), Size(40, 12, 0, N), Size(16, 48, 0, N), Size(16, 12, 0, 2 * N)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_statistics_bases_and_edges(size: Size) -> None:
    model, budget = Model(size), AMPLE
    statistics, bases = model.fitted(budget)
    features = [bases[layer].n_features for layer in model.chain.node_layers]
    fit = Fit(size.examples, budget)
    found = counted(lambda: chain_statistics(model.chain, model.inputs, budget))
    assert statistics_cost(model.shapes, fit).total == pytest.approx(found, rel=0.3)
    settings = FitSettings(memory_budget=budget)
    found = counted(lambda: fit_lib(model.chain, model.inputs, statistics, settings))
    eigenproblems = sum(2 * EIGENPROBLEM * d**3 for d in model.shapes.widths[:-1])
    assert basis_cost(model.shapes, fit, features).total - eigenproblems == pytest.approx(found, rel=0.3)
    found = counted(lambda: interaction_edges(model.chain, model.inputs, bases, memory_budget=budget))
    assert edges_cost(model.shapes, fit, features).total == pytest.approx(found, rel=0.3)


def test_what_is_computed_again_is_counted() -> None:
    """Where nothing is held, every layer passes through all those before it."""
    model = Model(Size(16, 12, 0, 24))
    statistics, _ = model.fitted(AMPLE)

    def operations(budget: int) -> int:
        return counted(lambda: fit_lib(model.chain, model.inputs, statistics, FitSettings(memory_budget=budget)))

    little, ample = (Passes.of(model.shapes, 24, budget, 0) for budget in (LITTLE, AMPLE))
    again = [sum(passes.reading(index) for index in range(4)) + passes.holding() for passes in (little, ample)]
    assert operations(LITTLE) - operations(AMPLE) == pytest.approx(again[0] - again[1], rel=0.3)
    assert again[0] > 1.5 * again[1]


def test_what_is_held_on_disk_is_told(tmp_path) -> None:
    model = Model(SIZES[0])
    room = 2**20
    chain = replace(model.chain, scratch=Scratch(tmp_path, room))
    passes = Passes.of(model.shapes, N, LITTLE, room)
    assert passes.on_disk == sum(N * example.nbytes for example in model.shapes.examples[:-1])
    assert all(stream.values_to_produce == 0 for stream in chain.streams(model.inputs, LITTLE))
    assert sum(passes.reading(index) for index in range(4)) == 0


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_evaluations_of_features(size: Size) -> None:
    """All that a curve is drawn at; the first section takes in what it can of the next."""
    model = Model(size)
    _, bases = model.fitted(AMPLE)
    features = [bases[layer].n_features for layer in model.chain.node_layers]
    for index, layer in enumerate(model.chain.node_layers[:-1]):
        schedule = kept_schedule(features[index])
        data = scored(model)
        found = counted(partial(node_ablation, model.chain, data, index, bases[layer], schedule, [], 1.0, AMPLE))
        formula = node_ablation_cost(model.shapes, Evaluated(size.examples, 0), [index], features)
        assert formula.total == pytest.approx(found, rel=0.3)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 1])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_evaluation_of_edges(size: Size, share: float) -> None:
    """With so many of the strongest kept, every output on its own mask."""
    model = Model(size)
    _, bases = model.fitted(AMPLE)
    layers = model.chain.node_layers
    features = [bases[layer].n_features for layer in layers]
    for index, pair in enumerate(pairwise(bases[layer] for layer in layers)):
        drawn = torch.rand(features[index + 1], features[index], generator=Generator().manual_seed(2))
        kept = round(share * drawn[:, 1:].numel())
        score = masked_scores(model.chain, scored(model), index, pair, AMPLE)
        found = counted(partial(score, strongest_edges(drawn, kept, True)))
        one = EdgePair.of(model.shapes, Evaluated(size.examples, AMPLE), index, features)
        assert size.examples * one.evaluation(Masks.of_edges(one.n_in, one.n_out, kept)) == pytest.approx(
            found, rel=0.3
        )


def scored(model: Model) -> EvaluationData:
    """A score that needs no operations."""
    data = accuracy(model.inputs, torch.zeros(len(model.inputs), dtype=torch.long))
    return replace(data, score_sum=lambda output, start, stop: float(stop - start))


def test_ablations_take_no_more_than_is_told() -> None:
    """Needed counts in the middle, whatever is drawn."""
    model = Model(SIZES[0])
    _, bases = model.fitted(AMPLE)
    layers, tolerances = model.chain.node_layers, [0.1, 0.5]
    features = [bases[layer].n_features for layer in layers]
    told = Evaluated(N, AMPLE, 0, tolerances)
    for index, pair in enumerate(pairwise(bases[layer] for layer in layers)):
        edges = torch.rand(features[index + 1], features[index], generator=Generator().manual_seed(3))
        scores = iter(torch.rand(1000, generator=Generator().manual_seed(4)).tolist())
        data = replace(
            scored(model), score_sum=lambda output, start, stop, scores=scores: (stop - start) * next(scores)
        )
        ablate = partial(edge_ablation, model.chain, data, index, pair, edges, tolerances, 1.0, AMPLE)
        most = edge_ablation_cost(model.shapes, told, [index], features).total + N * model.shapes.forward(index)
        assert 0.1 * most < counted(ablate) < 1.1 * most


def test_a_score_is_a_pass() -> None:
    model = Model(SIZES[0])
    found = counted(lambda: model.chain.output_from(model.chain.activation(model.inputs, 0), 0))
    assert score_cost(model.shapes, N, AMPLE).total == pytest.approx(found, rel=0.3)
