"""Where numbers are not finite the node layer and the first example are named, whatever the chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from libcore import accuracy, fit
from libcore.ablation import unablated_score
from libcore.chain import Chain
from libcore.constant import beside_constant, constant_alone, folded, with_constant
from libcore.eigen import descending_eigh
from libcore.estimators import edges, jacobian_gram
from libcore.fit_settings import FitSettings
from libcore.graph import interaction_edges
from libcore.methods import METHODS
from libcore.numerical_errors import NumericalError, all_finite, first_not_finite
from libcore.quadrature import GRADIENT
from libcore.sections import AffineSection, ResidualElementwiseSection
from libcore.statistics import chain_statistics

BUDGET = 2**12
WIDTH = 3


def chain_of(function: Callable[[Tensor], Tensor]) -> Chain:
    """Three numbers, the function of each, two logits."""
    eye = torch.eye(WIDTH, dtype=torch.float64)
    hidden = ResidualElementwiseSection(
        constant_alone(WIDTH, WIDTH, like=eye), folded(eye, None), beside_constant(eye), function
    )
    return Chain(
        ("inputs", "hidden", "output"),
        (hidden, AffineSection(folded(eye[:, :2], None))),
        embed=lambda inputs: with_constant(inputs)[:, None],
        last_has_constant=False,
    )


def root(x: Tensor) -> Tensor:
    return ((x - 0.5) * (x > 0.5)).sqrt()


def inputs_with(value: float, example: int, n: int = 100) -> Tensor:
    inputs = 1.0 + torch.rand(n, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs[example, 1] = value
    return inputs


class TestActivations:
    @pytest.mark.parametrize("example", [1, 57, 99])
    def test_the_layer_and_the_first_example(self, example: int) -> None:
        inputs = inputs_with(0.0, example)
        with pytest.raises(NumericalError, match=f"^hidden: .* not finite on example {example} of 100, counted from 0"):
            chain_statistics(chain_of(torch.reciprocal), inputs, BUDGET)

    def test_the_first_example_is_looked_at_before_all_others(self) -> None:
        with pytest.raises(NumericalError, match=r"^hidden: the activation is not finite on the first example"):
            fit(chain_of(torch.log), inputs_with(-1.0, 0))

    def test_finite_activations_whose_products_are_not(self) -> None:
        with pytest.raises(NumericalError, match=r"^inputs: activations reach 1e\+200, whose products are not finite"):
            chain_statistics(chain_of(torch.relu), inputs_with(1e200, 3), BUDGET)

    def test_scores(self) -> None:
        data = accuracy(inputs_with(0.0, 57), torch.zeros(100, dtype=torch.int64))
        with pytest.raises(NumericalError, match=r"^hidden: the activation is not finite on example 57 of 100"):
            unablated_score(chain_of(torch.reciprocal), data, BUDGET)


class TestJacobians:
    """Of `root` below a half: its value is finite, and its slope is not."""

    @pytest.mark.parametrize("estimator", ["exact", "closed_form", "stochastic"])
    @pytest.mark.parametrize("example", [0, 41])
    def test_jacobian_grams_and_edges(self, estimator: str, example: int) -> None:
        chain, inputs = chain_of(root), inputs_with(0.1, example)
        statistics = chain_statistics(chain, inputs, BUDGET)
        bases = METHODS["pca"](chain, inputs, statistics, FitSettings())
        stream = chain.streams(inputs, BUDGET)[0]
        with pytest.raises(NumericalError, match=f"^inputs: the Jacobian .* not finite on example {example} of 100"):
            jacobian_gram(chain.sections[0], stream, bases["hidden"], GRADIENT, estimator)
        expected = f"^inputs: what the next features are attributed to is not finite on example {example} of 100"
        with pytest.raises(NumericalError, match=expected):
            edges(chain.sections[0], stream, bases["inputs"], bases["hidden"], GRADIENT, estimator)
        with pytest.raises(NumericalError, match=r"^inputs: "):
            interaction_edges(chain, inputs, bases, estimator=estimator, memory_budget=BUDGET)

    def test_fitting(self) -> None:
        with pytest.raises(NumericalError, match=r"^inputs: the Jacobian to the next node layer is not finite on exam"):
            fit(chain_of(root), inputs_with(0.1, 41))


class TestFactorisations:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_what_cannot_be_decomposed(self, value: float) -> None:
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[1, 2] = value
        with pytest.raises(NumericalError, match=r"a symmetric matrix of 4 rows .* numbers that are not finite"):
            descending_eigh(matrix)


def test_the_first_of_several_by_halving() -> None:
    for bad in ({3}, {0}, {9}, {4, 7}):
        asked: list[tuple[int, int]] = []

        def is_finite(start: int, stop: int, bad: set[int] = bad, asked: list = asked) -> bool:
            asked.append((start, stop))
            return not bad & set(range(start, stop))

        assert first_not_finite(is_finite, 10) == min(bad)
        assert len(asked) <= 5
    assert first_not_finite(lambda start, stop: stop - start < 4, 10) is None  # a sum alone
    assert all_finite(torch.ones(3), torch.zeros(2))
    assert not all_finite(torch.ones(3), torch.tensor([1.0, torch.nan]))
