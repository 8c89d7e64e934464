"""A bias behind what mixes all positions enters as `b` times the mean of their constants (EXTENDING.md, the table)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import largest_difference, random
from torch import Generator, Tensor, nn

from libcore.from_module import section_of


class Mixing(nn.Module):
    """A linear map with a bias of what some function made of the tokens `[batch, 3, 4]`."""

    def __init__(self, mixed: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.mixed = mixed
        self.linear = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.mixed(torch.sin(x)))


@pytest.mark.parametrize(
    ("mixed", "width"),
    [
        (lambda x: x.mT, 3),
        (lambda x: x.mean(1, keepdim=True), 4),
        (lambda x: x.amax(1, keepdim=True), 4),
        (lambda x: x.flatten(1), 12),
    ],
    ids=["transposed", "mean", "maximum", "flattened"],
)
def test_a_bias_reads_the_mean_of_the_constants(
    generator: Generator, mixed: Callable[[Tensor], Tensor], width: int
) -> None:
    module, x = Mixing(mixed, width).double(), random(generator, 2, 3, 4)
    section = section_of(module, x, constant_out=False)
    constants = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64).expand(2, 3).unsqueeze(-1)
    found = section(torch.cat([x, constants], dim=-1))
    with torch.no_grad():
        module.linear.bias.mul_(1.5)
        expected = module(x)
    assert largest_difference(found.reshape(expected.shape), expected) < 1e-12
