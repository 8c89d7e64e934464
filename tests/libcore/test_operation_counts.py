"""How much each stage computes, counted and not timed: what would grow if a loop came back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_models import AMPLE, affine, attention, random, residual_elementwise
from torch import Generator, Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from libcore.ablation import accuracy, edge_ablation, node_ablation
from libcore.ablation.node import NUMBERS_AT_A_TIME
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.constant import with_constant
from libcore.fit_settings import FitSettings
from libcore.graph import interaction_edges
from libcore.methods.lib import fit_lib
from libcore.statistics import ROWS_PER_SUM, chain_statistics

N, TOKENS, POSITIONS, D, HIDDEN = 1200, 6, 3, 16, 32


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations of other threads are not counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Counted:
    """A one-block transformer over few tokens, and how many examples were embedded."""

    def __init__(self, n_logits: int = 5) -> None:
        generator = Generator().manual_seed(0)
        sections = (
            attention(generator, D, D, query_positions=(-1,)),
            residual_elementwise(generator, D, HIDDEN, D, functional.relu),
            affine(generator, D, n_logits, constant_out=False),
        )
        embedding = random(generator, POSITIONS, TOKENS, D - 1)
        self.embedded = 0

        def embed(tokens: Tensor) -> Tensor:
            self.embedded += len(tokens)
            return with_constant(embedding[torch.arange(POSITIONS), tokens])

        self.chain = Chain(("pre", "mid", "post", "output"), sections, embed, last_has_constant=False)
        self.inputs = torch.randint(TOKENS, (N, POSITIONS), generator=generator)
        self.labels = torch.randint(n_logits, (N,), generator=generator)
        self.statistics = chain_statistics(self.chain, self.inputs, AMPLE)
        self.bases: dict[str, Basis] = fit_lib(self.chain, self.inputs, self.statistics, FitSettings())

    def embedded_by(self, compute: Callable[[], object]) -> int:
        self.embedded = 0
        compute()
        return self.embedded


def multiplications(compute: Callable[[], object]) -> int:
    """In matrix products."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops() // 2


def test_statistics_and_bases_pass_through_the_model_twice_whatever_its_depth() -> None:
    model = Counted()
    looks = 20  # single examples, to plan with
    of_statistics = model.embedded_by(lambda: chain_statistics(model.chain, model.inputs, AMPLE))
    of_bases = model.embedded_by(lambda: fit_lib(model.chain, model.inputs, model.statistics, FitSettings()))
    assert N <= of_statistics <= N + ROWS_PER_SUM + looks
    assert N <= of_bases <= N + looks


def test_a_basis_costs_the_same_for_many_output_features_as_for_few() -> None:
    """Counted is what the second half of the data adds: weights times 200 logits cost something, once."""

    def added(n_logits: int) -> int:
        model = Counted(n_logits)
        some, all_inputs = model.inputs[: N // 2], model.inputs
        few, many = (
            multiplications(lambda inputs=inputs: fit_lib(model.chain, inputs, model.statistics, FitSettings()))
            for inputs in (some, all_inputs)
        )
        return many - few

    assert added(100) == added(200) > N // 2 * D * HIDDEN


def test_a_basis_takes_no_backward_pass_for_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """One elementwise derivative for each chunk of the MLP's inputs."""
    derivatives: list[int] = []
    differentiate = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kw: derivatives.append(1) or differentiate(*args, **kw))
    model = Counted(n_logits=200)
    derivatives.clear()
    fit_lib(model.chain, model.inputs, model.statistics, FitSettings())
    assert len(derivatives) <= 2


def test_edges_behind_an_mlp_multiply_active_neurons_only() -> None:
    model = Counted()
    pair = model.chain.restricted_to(["mid", "post"])
    activation = model.chain.activation(model.inputs, 1)
    active = (activation @ model.chain.sections[1].weight_in > 0).sum().item()
    bases = {layer: model.bases[layer] for layer in ("mid", "post")}
    n_in, n_out = bases["mid"].n_features, bases["post"].n_features
    counted = multiplications(lambda: interaction_edges(pair, model.inputs, bases))
    counted -= multiplications(lambda: pair.streams(model.inputs, AMPLE))
    to_derivatives = N * (2 * D * n_in + D * HIDDEN)
    assert active * n_in * n_out <= counted <= 1.3 * (active * n_in * n_out + to_derivatives)


@pytest.mark.parametrize("index", range(3))
def test_node_ablation_embeds_once_for_all_numbers_taken_together(index: int) -> None:
    model = Counted()
    basis = model.bases[model.chain.node_layers[index]]
    data = accuracy(model.inputs, model.labels)
    numbers = range(basis.n_features + 1)
    ablate = partial(node_ablation, model.chain, data, index, basis, numbers, [], 0.5, AMPLE)
    batches = -(-len(numbers) // NUMBERS_AT_A_TIME)
    assert model.embedded_by(ablate) <= (1 if index == 0 else batches) * N + 20


def test_node_ablation_takes_no_pass_through_the_layer_itself() -> None:
    """For a further feature: an update of rank one, then hidden neurons to logits."""
    model, n_logits = Counted(), 5
    basis = model.bases["mid"]
    data = accuracy(model.inputs, model.labels)
    counts = [
        multiplications(lambda numbers=numbers: node_ablation(model.chain, data, 1, basis, numbers, [], 0.5, AMPLE))
        for numbers in ([3], [3, 4])
    ]
    further = counts[1] - counts[0]
    assert further <= 1.1 * N * (HIDDEN * n_logits + (HIDDEN + n_logits) + D)
    assert further < N * D * HIDDEN


@pytest.mark.parametrize("index", range(3))
def test_edge_ablation_costs_as_much_as_edges_are_kept(index: int) -> None:
    """Fewer products than a pass through the section for every output feature of one single evaluation."""
    model = Counted(n_logits=40)
    layers = model.chain.node_layers
    bases = (model.bases[layers[index]], model.bases[layers[index + 1]])
    edges = interaction_edges(model.chain, model.inputs, model.bases)[layers[index]]
    data = replace(accuracy(model.inputs, model.labels), score_sum=lambda output, start, stop: float(stop - start))
    rest = multiplications(lambda: model.chain.output_from(model.chain.activation(model.inputs, index), index))
    counted = multiplications(lambda: edge_ablation(model.chain, data, index, bases, edges, [0.01], 1.0, AMPLE))
    one_by_one = rest * bases[1].n_features
    assert counted < one_by_one
