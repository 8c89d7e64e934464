"""No array made on the way is larger than the budget, when inputs, results and single examples are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from section_cases import CLOSED_FORM, D_IN, D_OUT, RULES, SECTIONS, case_of
from tiny_models import AMPLE, basis_of, layer_statistics, random, random_activation, residual_elementwise, stream_of
from torch import Generator, Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.sections import ClosedForm
from libcore.sections.masked import evaluate_mask_by_mask, masked_evaluation

BUDGET = 60_000
"""Bytes."""


class LargestArray(TorchDispatchMode):
    """Bytes of the largest tensor that any operation inside returned; a view counts as what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                shown = tensor.numel() * tensor.element_size()
                self.bytes = max(self.bytes, min(shown, tensor.untyped_storage().nbytes()))
        return result


def test_the_largest_array_is_seen() -> None:
    with LargestArray() as largest:
        torch.zeros(10, dtype=torch.float64).expand(1000, 10).sum(0)
    assert largest.bytes == 80


def largest_array_of(compute: Callable[[int], object], memory_budget: int) -> int:
    """Bytes of the largest array that `compute` makes within this budget, of which several threads have a share each.

    In one thread, since what others make is not seen from here.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with LargestArray() as largest:
            compute(memory_budget)
    finally:
        torch.set_num_threads(n_threads)
    return largest.bytes


def assert_budget_is_kept(compute: Callable[[int], object]) -> None:
    """The test's data are large enough to need the budget."""
    assert largest_array_of(compute, AMPLE) > BUDGET
    assert largest_array_of(compute, BUDGET) <= BUDGET


def test_statistics(generator: Generator) -> None:
    activation = random_activation(generator, 3000, 3, D_IN)
    assert_budget_is_kept(lambda budget: layer_statistics(activation, budget))


@pytest.mark.parametrize(("next_features", "n"), [(10, 50), (60, 6)])
@pytest.mark.parametrize("name", ["gelu", "attention"])
def test_differentiation(generator: Generator, name: str, next_features: int, n: int) -> None:
    case = case_of(SECTIONS[name](generator), generator, n=n, next_features=next_features)
    bases, quadrature = (case.basis, case.next_basis), RULES["gradient"][0]
    assert_budget_is_kept(
        lambda budget: exact_jacobian_gram(
            case.section, stream_of(case.activation, budget), case.next_basis, quadrature
        )
    )
    assert_budget_is_kept(
        lambda budget: exact_edges(case.section, stream_of(case.activation, budget), *bases, quadrature)
    )


@pytest.mark.parametrize(
    ("rule", "name", "n"),
    [
        ("gradient", "gelu", 600),
        ("gradient", "attention", 250),
        ("gradient", "attention_read_at_some_positions", 250),
        ("trapezoidal", "gelu", 600),
        ("trapezoidal", "attention", 120),
        ("trapezoidal", "attention_read_at_some_positions", 120),
    ],
)
def test_closed_forms(generator: Generator, name: str, n: int, rule: str) -> None:
    case = case_of(CLOSED_FORM[name](generator), generator, n=n, next_features=19)
    bases, quadrature = (case.basis, case.next_basis), RULES[rule][0]
    section = case.section
    assert isinstance(section, ClosedForm)
    assert_budget_is_kept(
        lambda budget: section.closed_form_jacobian_gram(
            stream_of(case.activation, budget), case.next_basis, quadrature
        )
    )
    assert_budget_is_kept(
        lambda budget: section.closed_form_edges(stream_of(case.activation, budget), *bases, quadrature)
    )


@pytest.mark.parametrize("evaluation", [masked_evaluation, evaluate_mask_by_mask])
def test_masked_evaluation_of_many_masks_over_many_inputs(generator: Generator, evaluation: Callable) -> None:
    n, features_in, features_out = 50, 100, 70
    section = residual_elementwise(generator, D_IN, 5, D_OUT, functional.relu)
    features, basis = random(generator, n, 1, features_in), basis_of(from_basis=random(generator, features_in, D_IN))
    mask = torch.rand(features_out, features_in, generator=generator) < 0.9
    next_basis = basis_of(random(generator, D_OUT, features_out))
    assert_budget_is_kept(lambda budget: evaluation(section, features, basis, next_basis, budget)(mask))
