"""Sections compute what their formulas say, position by position and head by head."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt

import pytest
import torch
from tiny_models import affine, attention, largest_difference, random_activation, residual_elementwise
from torch import Tensor
from torch.nn import functional

from libcore.sections import AttentionSection, ComposedSection, FunctionSection, Section, compose


def naive_attention(section: AttentionSection, activation: Tensor, queries: list[int]) -> Tensor:
    """One example, query, head and key at a time."""
    n_heads, _, d_head = section.attention.W_Q.shape
    outputs = []
    for f in activation:
        for t in queries:
            output = f[t] @ section.residual
            for h in range(n_heads):
                keys = range(t + 1) if section.attention.causal else range(len(f))
                scores = [
                    ((f[t] @ section.attention.W_Q[h]) @ (f[s] @ section.attention.W_K[h])).item() / sqrt(d_head)
                    for s in keys
                ]
                total = sum(exp(score) for score in scores)
                for s, score in zip(keys, scores, strict=True):
                    output = output + exp(score) / total * (f[s] @ section.attention.W_V[h]) @ section.attention.W_O[h]
            outputs.append(output)
    return torch.stack(outputs).unflatten(0, (len(activation), len(queries)))


def test_affine(generator: torch.Generator) -> None:
    section = affine(generator, 4, 3, constant_out=False)
    activation = random_activation(generator, 2, 3, 4)
    output = section(activation)
    assert output.shape == (2, 3, 3)
    for x in range(2):
        for s in range(3):
            expected = section.weight[:-1].T @ activation[x, s, :-1] + section.weight[-1]
            assert largest_difference(output[x, s], expected) < 1e-14


@pytest.mark.parametrize("activation_function", [functional.relu, functional.gelu, torch.tanh])
def test_residual_elementwise(generator: torch.Generator, activation_function: Callable[[Tensor], Tensor]) -> None:
    section = residual_elementwise(generator, 4, 6, 3, activation_function)
    activation = random_activation(generator, 2, 3, 4)
    output = section(activation)
    assert output.shape == (2, 3, 3)
    for x in range(2):
        for s in range(3):
            expected = section.residual.T @ activation[x, s]
            for k in range(6):
                expected = (
                    expected + activation_function(activation[x, s] @ section.weight_in[:, k]) * section.weight_out[k]
                )
            assert largest_difference(output[x, s], expected) < 1e-14


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("query_positions", "queries"), [(None, [0, 1, 2, 3]), ((-1,), [3]), ((2, 0), [2, 0]), ((1, -1), [1, 3])]
)
def test_attention(
    generator: torch.Generator, query_positions: tuple[int, ...] | None, queries: list[int], causal: bool
) -> None:
    section = attention(generator, 4, 5, query_positions=query_positions, causal=causal)
    activation = random_activation(generator, 3, 4, 4)
    assert largest_difference(section(activation), naive_attention(section, activation, queries)) < 1e-13


@pytest.mark.parametrize("d_value", [1, 3])
def test_attention_with_values_of_another_width_than_keys(generator: torch.Generator, d_value: int) -> None:
    section = attention(generator, 4, 5, d_value=d_value)
    activation = random_activation(generator, 3, 4, 4)
    assert largest_difference(section(activation), naive_attention(section, activation, [0, 1, 2, 3])) < 1e-13


def test_a_causal_query_does_not_see_later_positions(generator: torch.Generator) -> None:
    section = attention(generator, 4, 4)
    activation = random_activation(generator, 2, 4, 4)
    changed = activation.clone()
    changed[:, 2:, :-1] += 1.0
    assert torch.equal(section(activation)[:, :2], section(changed)[:, :2])


def test_a_query_position_beyond_the_sequence_is_refused(generator: torch.Generator) -> None:
    section = attention(generator, 4, 4, query_positions=(3,))
    with pytest.raises(IndexError):
        section(random_activation(generator, 2, 3, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda generator: affine(generator, 4, 4),
        lambda generator: residual_elementwise(generator, 4, 6, 4, functional.gelu),
        lambda generator: attention(generator, 4, 4),
    ],
    ids=["affine", "residual_elementwise", "attention"],
)
def test_the_constant_stays_one_and_zero_goes_to_zero(
    generator: torch.Generator, make: Callable[[torch.Generator], Section]
) -> None:
    section = make(generator)
    activation = random_activation(generator, 2, 3, 4)
    assert torch.allclose(section(activation)[..., -1], torch.ones(2, 3, dtype=torch.float64), atol=1e-15)
    assert torch.equal(section(torch.zeros_like(activation)), torch.zeros_like(activation))


def test_composition_applies_sections_in_order(generator: torch.Generator) -> None:
    first, second = attention(generator, 4, 5, query_positions=(-1,)), affine(generator, 5, 3)
    activation = random_activation(generator, 2, 3, 4)
    assert torch.equal(ComposedSection([first, second])(activation), second(first(activation)))
    assert torch.equal(compose((first, second))(activation), second(first(activation)))


def test_composition_of_one_section_is_that_section(generator: torch.Generator) -> None:
    section = affine(generator, 3, 3)
    assert compose([section]) is section


def test_function_section_is_the_function(generator: torch.Generator) -> None:
    activation = random_activation(generator, 2, 3, 4)
    assert torch.equal(FunctionSection(torch.sin)(activation), torch.sin(activation))


def test_moving_a_section_copies_every_tensor_and_leaves_the_original(generator: torch.Generator) -> None:
    parts = (
        attention(generator, 4, 5, query_positions=(-1,)),
        residual_elementwise(generator, 5, 6, 3, functional.relu),
    )
    section = ComposedSection([ComposedSection(parts[:1]), parts[1]])
    activation = random_activation(generator, 2, 3, 4)
    before = section(activation)
    moved = section.to(dtype=torch.float32)
    assert isinstance(moved, ComposedSection)
    assert moved(activation.float()).dtype == torch.float32
    assert largest_difference(moved(activation.float()).double(), before) < 1e-5
    assert torch.equal(section(activation), before)


def test_moving_keeps_what_is_no_floating_point_tensor() -> None:
    section = FunctionSection(torch.sin)
    section.index = torch.arange(3)  # pyright: ignore[reportAttributeAccessIssue] - a section of a user's own
    moved = section.to(dtype=torch.float32)
    assert vars(moved)["index"].dtype == torch.int64
    assert vars(moved)["function"] is torch.sin
