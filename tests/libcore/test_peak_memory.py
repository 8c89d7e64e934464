"""What is alive at once stays within the budget, beside inputs, weights and results: every stage, on three budgets."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import affine, attention, random_activation, residual_elementwise
from torch import Generator, Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from libcore.ablation import accuracy, node_ablation, strongest_edges, unablated_score
from libcore.ablation.masked_scores import masked_scores
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.gauge.leading import leading_by_layer
from libcore.gauge.mixing import Rotations
from libcore.gauge.optimisation import SparsityLoss, sparse_mixings
from libcore.gauge.sample import sampled_jacobians
from libcore.graph import interaction_edges
from libcore.methods.lib import fit_lib
from libcore.statistics import chain_statistics

BUDGETS = (100_000, 200_000, 800_000)
"""Bytes; the data are seven times the smallest."""
D, HIDDEN, LOGITS, POSITIONS, N = 12, 24, 7, 3, 2400


class PeakMemory(TorchDispatchMode):
    """Bytes of all storages made inside that were alive at the same time, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.seen = weakref.WeakSet[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {
            tensor.untyped_storage().data_ptr()
            for tensor in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self._made(tensor.untyped_storage())
        return result

    def _made(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.alive -= size


def peak_of(compute: Callable[[], object]) -> int:
    """In one thread, since what others make is not seen from here."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with PeakMemory() as memory:
            result = compute()
        del result
    finally:
        torch.set_num_threads(n_threads)
    return memory.peak


def test_what_is_alive_at_once_is_added_up() -> None:
    def twice() -> Tensor:
        first = torch.zeros(1000, dtype=torch.float64)
        second = first + 1.0
        del first
        return second[:10] * second[10:20]

    assert peak_of(twice) == 16_000


@pytest.fixture(scope="module")
def chain() -> Chain:
    generator = Generator().manual_seed(0)
    sections = (
        attention(generator, D, D, query_positions=(-1,)),
        residual_elementwise(generator, D, HIDDEN, D, functional.relu),
        affine(generator, D, LOGITS, constant_out=False),
    )
    return Chain(("pre", "mid", "post", "output"), sections, embed=lambda inputs: inputs, last_has_constant=False)


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return random_activation(Generator().manual_seed(1), N, POSITIONS, D)


@pytest.fixture(scope="module")
def stages(chain: Chain, inputs: Tensor) -> dict[str, Callable[[int], object]]:
    """Each by its budget; what they need of others is made beforehand."""
    statistics = chain_statistics(chain, inputs[:500], 2**24)
    bases = fit_lib(chain, inputs[:500], statistics, FitSettings())
    edges = interaction_edges(chain, inputs[:500], bases)
    labels = torch.randint(LOGITS, (N,), generator=Generator().manual_seed(2))
    data = accuracy(inputs, labels)
    layers = chain.node_layers

    def of_edges(index: int, budget: int) -> object:
        strengths = edges[layers[index]]
        score_of = masked_scores(chain, data, index, (bases[layers[index]], bases[layers[index + 1]]), budget)
        return [score_of(strongest_edges(strengths, kept, True)) for kept in (9, 30)]

    def of_mixings(budget: int) -> object:
        leading = leading_by_layer(bases, statistics, 0.0, 64)
        pairs = sampled_jacobians(chain, inputs, bases, leading, 4, FitSettings(memory_budget=budget))
        assert sum(pair.nbytes for pair in pairs) > budget / 20
        families = {layer: Rotations(torch.eye(len(leading[layer])).double()) for layer in layers[:-1]}
        return sparse_mixings(SparsityLoss.of(layers, pairs, [1.0] * 3), families, 2)

    return {
        "mixings": of_mixings,
        "statistics": lambda budget: chain_statistics(chain, inputs, budget),
        "basis": lambda budget: fit_lib(chain, inputs, statistics, FitSettings(memory_budget=budget)),
        "edges": lambda budget: interaction_edges(chain, inputs, bases, memory_budget=budget),
        "score": lambda budget: unablated_score(chain, data, budget),
        **{
            f"{kind} of {layers[index]}": lambda budget, index=index, make=make: make(index, budget)
            for index in range(3)
            for kind, make in (
                (
                    "features",
                    lambda index, budget: node_ablation(
                        chain, data, index, bases[layers[index]], range(8), [0.01], 0.5, budget
                    ),
                ),
                ("edges", of_edges),
            )
        },
    }


OF_LAYERS = [f"{kind} of {layer}" for layer in ("pre", "mid", "post") for kind in ("features", "edges")]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("stage", ["statistics", "basis", "edges", "score", "mixings", *OF_LAYERS])
def test_the_peak_is_within_the_budget(stages: dict[str, Callable[[int], object]], stage: str, budget: int) -> None:
    compute = stages[stage]
    of_results = 40_000  # bases, Grams, edges, weights in other coordinates
    assert peak_of(lambda: compute(budget)) <= budget + of_results
