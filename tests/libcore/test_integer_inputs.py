"""Moments of small integers, exact; and one pass through a model for the moments of all its node layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import slow_reference
import torch
from tiny_models import AMPLE, affine, largest_difference
from torch import Generator

from libcore.chain import Chain
from libcore.integers import EXACT_BELOW, ScaledIntegers
from libcore.statistics import ROWS_PER_SUM, IntegerMoments, chain_statistics

PIXELS = ScaledIntegers(255, torch.float64, torch.device("cpu"))


def images(generator: Generator, n: int, high: int = 256) -> torch.Tensor:
    return torch.randint(high, (n, 2, 3), dtype=torch.uint8, generator=generator)


def chain_on_pixels(generator: Generator) -> Chain:
    return Chain(("image", "output"), (affine(generator, 7, 4, constant_out=False),), PIXELS, last_has_constant=False)


@pytest.mark.parametrize("memory_budget", [1, 3000, AMPLE])
def test_moments_of_pixels_are_eq_1(generator: Generator, memory_budget: int) -> None:
    chain, inputs = chain_on_pixels(generator), images(generator, 31)
    found = chain_statistics(chain, inputs, memory_budget)["image"]
    mean, gram = slow_reference.mean_and_gram(chain.activation(inputs, 0), has_constant=True)
    assert found.count == 31
    assert largest_difference(found.mean, mean) < 1e-14
    assert largest_difference(found.gram, gram) < 1e-14


def test_sums_in_float32_are_exact(generator: Generator) -> None:
    """At the largest numbers, over as many rows as are summed at a time and some more."""
    n = 2 * PIXELS.rows_per_product + 5
    moments = IntegerMoments(PIXELS, torch.zeros(1, 2, dtype=torch.uint8))
    inputs = torch.tensor([[0, 255]], dtype=torch.uint8).repeat(n, 1)
    inputs[0] = torch.tensor([1, 254])
    moments.add(inputs)
    centred = inputs.long() - PIXELS.middle
    assert torch.equal(moments.scatter.triu().long(), (centred.T @ centred).triu())
    assert torch.equal(moments.sum.long(), centred.sum(0))
    assert PIXELS.rows_per_product * PIXELS.middle**2 <= EXACT_BELOW


def test_a_pixel_that_is_always_the_same_has_no_variance(generator: Generator) -> None:
    inputs = images(generator, 50)
    inputs[:, 1, 1] = 77
    gram = chain_statistics(chain_on_pixels(generator), inputs, AMPLE)["image"].gram
    assert not gram[4].any()
    assert not gram[:, 4].any()


def test_a_model_is_passed_through_once_whatever_its_depth(generator: Generator) -> None:
    chain = chain_on_pixels(generator)
    embedded: list[int] = []
    counting = replace(chain, embed=lambda inputs: embedded.append(len(inputs)) or PIXELS(inputs))
    chain_statistics(counting, images(generator, 4000), 20_000)
    of_centre = ROWS_PER_SUM
    assert 4000 <= sum(embedded) <= 4000 + of_centre + embedded.count(1)
