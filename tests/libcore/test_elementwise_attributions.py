"""Squared attributions through a hidden layer: neurons without a derivative left out, samples in any groups."""

from __future__ import annotations

import pytest
import torch
from tiny_models import AMPLE, largest_difference, random
from torch import Generator, Tensor

from libcore.sections.positionwise import attributions
from libcore.sections.positionwise.attributions import ElementwiseAttributions

N, IN, HIDDEN, OUT = 11, 4, 9, 5


def derivatives(generator: Generator) -> dict[str, Tensor]:
    dense = random(generator, N, HIDDEN)
    sparse = dense * (torch.rand(N, HIDDEN, generator=generator) < 0.4)
    none_in_some = sparse * (torch.arange(N) % 3 != 0)[:, None]
    return {"dense": dense, "sparse": sparse, "none_in_some": none_in_some, "none": torch.zeros_like(dense)}


@pytest.mark.parametrize("budget", [1, 3000, AMPLE])
@pytest.mark.parametrize("name", ["dense", "sparse", "none_in_some", "none"])
def test_they_are_those_of_every_sample(generator: Generator, name: str, budget: int) -> None:
    linear, weight_in, weight_out = (
        random(generator, IN, OUT),
        random(generator, IN, HIDDEN),
        random(generator, HIDDEN, OUT),
    )
    features, derivative = random(generator, N, IN), derivatives(generator)[name]
    found = ElementwiseAttributions(linear, weight_in, weight_out, budget)
    for some in (slice(0, 7), slice(7, N)):
        found.add(features[some], derivative[some])
    jacobian = linear + torch.einsum("jk,nk,ki->nji", weight_in, derivative, weight_out)
    expected = (jacobian * features[:, :, None]).square().sum(0)
    assert largest_difference(found.square_sum, expected) < 1e-13


def test_neurons_without_a_derivative_cost_nothing(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in multiplications of the batched product."""
    multiplied: list[int] = []

    def counted(left: Tensor, right: Tensor) -> Tensor:
        multiplied.append(left.shape[0] * left.shape[1] * left.shape[2] * right.shape[2])
        return torch.einsum("bij,bjk->bik", left, right)

    monkeypatch.setattr(attributions.torch, "bmm", counted)
    found = ElementwiseAttributions(
        random(generator, IN, OUT), random(generator, IN, HIDDEN), random(generator, HIDDEN, OUT), memory_budget=1
    )
    derivative = torch.tensor([[1.0] * n + [0.0] * (HIDDEN - n) for n in (1, 3, 2)], dtype=torch.float64)
    found.add(random(generator, 3, IN), derivative)
    assert multiplied == [n * IN * OUT for n in (1, 2, 3)]
