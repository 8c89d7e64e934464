"""Means and Grams: streamed, chunked and merged, they are eq. 1."""

from __future__ import annotations

import math

import pytest
import slow_reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import AMPLE, BUDGETS, largest_difference, layer_statistics, random_activation, random_chain

from libcore.statistics import (
    COLUMNS_PER_BLOCK,
    ROWS_PER_SUM,
    LayerStatistics,
    RunningMoments,
    chain_statistics,
    statistics_of,
)


def assert_equal(left: LayerStatistics, right: LayerStatistics) -> None:
    assert left.count == right.count
    assert largest_difference(left.mean, right.mean) < 1e-12
    assert largest_difference(left.gram, right.gram) < 1e-12


@pytest.mark.parametrize("has_constant", [True, False])
@pytest.mark.parametrize("memory_budget", BUDGETS)
def test_streamed_statistics_are_eq_1(generator: torch.Generator, memory_budget: int, has_constant: bool) -> None:
    activation = random_activation(generator, 7, 3, 4)
    mean, gram = slow_reference.mean_and_gram(activation, has_constant)
    streamed = layer_statistics(activation, memory_budget, has_constant)
    assert streamed.count == 21
    assert largest_difference(streamed.mean, mean) < 1e-13
    assert largest_difference(streamed.gram, gram) < 1e-13


def test_statistics_of_more_rows_than_one_sum_takes(generator: torch.Generator) -> None:
    activation = random_activation(generator, ROWS_PER_SUM + 3, 1, 3)
    mean, gram = slow_reference.mean_and_gram(activation, has_constant=True)
    streamed = layer_statistics(activation)
    assert largest_difference(streamed.mean, mean) < 1e-12
    assert largest_difference(streamed.gram, gram) < 1e-12


@pytest.mark.parametrize("memory_budget", [100_000, AMPLE])
def test_a_gram_of_many_rows_is_summed_in_short_sums(generator: torch.Generator, memory_budget: int) -> None:
    """Measured: up to 6e-16, where one product over all rows is off by 2e-15 and more."""
    activation = random_activation(generator, 8192, 1, 5)
    streamed = layer_statistics(activation, memory_budget, has_constant=False)
    centred = activation[:, 0] - activation[:, 0].mean(0)
    products = (centred[:, :, None] * centred[:, None, :]).flatten(1)
    expected = torch.tensor([math.fsum(column) / 8192 for column in products.T.tolist()], dtype=torch.float64)
    assert largest_difference(streamed.gram.flatten(), expected) < 1.2e-15


def test_constant_coordinate_has_mean_one_and_is_uncorrelated(generator: torch.Generator) -> None:
    statistics = layer_statistics(random_activation(generator, 9, 2, 4), memory_budget=1)
    assert statistics.mean[-1] == 1.0
    assert torch.allclose(statistics.gram[-1], torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64), atol=1e-14)


def test_small_variance_beside_a_large_mean_survives(generator: torch.Generator) -> None:
    activation = torch.full((1000, 1, 2), 1e6, dtype=torch.float64)
    activation[..., 0] += 1e-3 * torch.randn(1000, 1, generator=generator, dtype=torch.float64)
    variance = activation[:, 0, 0].var(correction=0)
    streamed = layer_statistics(activation, memory_budget=1, has_constant=False)
    assert abs(streamed.gram[0, 0] - variance) < 1e-6 * variance


def test_float32_activations_are_summed_in_float64(generator: torch.Generator) -> None:
    activation = random_activation(generator, 50, 1, 3).float()
    streamed = layer_statistics(activation, memory_budget=1)
    _, gram = slow_reference.mean_and_gram(activation.double(), has_constant=True)
    assert streamed.gram.dtype == torch.float64
    assert largest_difference(streamed.gram, gram) < 1e-12


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_moments_taken_in_parts_are_those_of_all_data(counts: list[int], seed: int) -> None:
    activation = random_activation(torch.Generator().manual_seed(seed), sum(counts), 1, 3).flatten(0, 1)
    for order in (counts, counts[::-1]):
        moments = RunningMoments(activation[0], has_constant=True)
        for rows in activation.split(order):
            moments.add(rows)
        assert_equal(moments.statistics(), statistics_of(activation, True))


def test_a_gram_of_several_blocks_of_columns(generator: torch.Generator) -> None:
    activation = random_activation(generator, 40, 1, COLUMNS_PER_BLOCK + 5)
    _, gram = slow_reference.mean_and_gram(activation, has_constant=True)
    streamed = layer_statistics(activation)
    assert largest_difference(streamed.gram, gram) < 1e-12
    assert torch.equal(streamed.gram, streamed.gram.T)


def test_chain_statistics_describe_every_node_layer(generator: torch.Generator) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 6, 3, 4)
    statistics = chain_statistics(chain, inputs, memory_budget=1)
    assert tuple(statistics) == chain.node_layers
    for index, layer in enumerate(chain.node_layers):
        mean, gram = slow_reference.mean_and_gram(chain.activation(inputs, index), has_constant=layer != "output")
        assert largest_difference(statistics[layer].mean, mean) < 1e-12
        assert largest_difference(statistics[layer].gram, gram) < 1e-12
