"""Outputs with only the first features kept: every fast way is the slow projection, number by number."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from section_cases import D_IN, SECTIONS
from tiny_models import AMPLE, affine, attention, basis_of, random, residual_elementwise, stream_of
from torch import Generator, Tensor
from torch.nn import functional

from libcore.basis import Basis
from libcore.sections import Section
from libcore.sections.attention import tables
from libcore.sections.kept import growing_sum, kept_evaluation, number_by_number, shorter
from libcore.streams import ActivationStream

POSITIONS, FEATURES = 3, 6
NUMBERS = ((0, 1, 2, 3, 4, 5, 6), (2, 5), (6,), (0,))


def basis_for(generator: Generator, d: int = D_IN) -> Basis:
    return basis_of(random(generator, d, FEATURES), random(generator, FEATURES, d))


def repeated(generator: Generator, n: int = 60, tokens: int = 3, same_last: bool = False) -> Tensor:
    """Activations that take one value per token and position."""
    table = random(generator, POSITIONS, tokens, D_IN)
    token = torch.randint(tokens, (n, POSITIONS), generator=generator)
    token[:, -1] = 0 if same_last else token[:, -1]
    return table[torch.arange(POSITIONS), token]


def slow(section: Section, activation: Tensor, basis: Basis, kept: int) -> Tensor:
    return section(activation @ basis.to_basis[:, :kept] @ basis.from_basis[:kept])


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("name", SECTIONS)
def test_it_is_the_section_on_the_projected_activation(generator: Generator, name: str, numbers: tuple) -> None:
    section, basis = SECTIONS[name](generator), basis_for(generator)
    activation = random(generator, 7, POSITIONS, D_IN)
    outputs_of = kept_evaluation(section, stream_of(activation), basis)(numbers)
    for start, stop in ((0, 4), (4, 7)):
        found = [output.clone() for output in outputs_of(start, stop)]
        for kept, output in zip(numbers, found, strict=True):
            expected = slow(section, activation[start:stop], basis, kept)
            assert torch.allclose(output, expected, rtol=1e-11, atol=1e-11)


ATTENTION = {
    "one_query": (dict(query_positions=(-1,)), True),
    "several_queries": (dict(query_positions=(-1,)), False),
    "all_positions": ({}, False),
    "bidirectional": (dict(causal=False), True),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_over_few_activations_is_read_from_tables(
    generator: Generator, name: str, dtype: torch.dtype
) -> None:
    options, same_last = ATTENTION[name]
    section = attention(generator, D_IN, 5, **options).to(dtype=dtype)
    activation = repeated(generator, same_last=same_last).to(dtype)
    basis = basis_for(generator).to(dtype=dtype)
    evaluation = section.kept_evaluation(stream_of(activation), basis)
    assert evaluation is not None
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-4}[dtype]
    for kept, output in zip(NUMBERS[0], evaluation(NUMBERS[0])(10, 50), strict=True):
        expected = slow(section, activation[10:50], basis, kept)
        assert output.dtype == dtype
        assert torch.allclose(output, expected, rtol=tolerance, atol=tolerance)


def test_scores_far_apart_are_normalised_example_by_example(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exponentials of all keys at once would overflow, or be zero for all keys of an example."""
    section = attention(generator, D_IN, 5, query_positions=(-1,))
    activation, basis = 40 * repeated(generator, same_last=True), basis_for(generator)
    found = [output.clone() for output in section.kept_evaluation(stream_of(activation), basis)(NUMBERS[0])(0, 60)]
    for kept, output in zip(NUMBERS[0], found, strict=True):
        expected = slow(section, activation, basis, kept)
        assert torch.allclose(output, expected, rtol=1e-11, atol=1e-11 * expected.abs().max())
    monkeypatch.setattr(tables, "LARGEST_EXPONENT", float("inf"))
    wrong = [output.clone() for output in section.kept_evaluation(stream_of(activation), basis)(NUMBERS[0])(0, 60)]
    assert any(not torch.allclose(one, other, equal_nan=False) for one, other in zip(found, wrong, strict=True))


def test_heads_write_features_where_these_are_fewer_than_their_values(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product of every example with what heads write is then as much shorter, if the budget holds the weights."""
    section, basis = attention(generator, D_IN, 600, query_positions=(-1,), d_value=3), basis_for(generator)
    n_heads, d_value, _ = section.attention.W_O.shape
    read, product = [], torch.mm

    def watched(one: Tensor, other: Tensor, **rest: Tensor) -> Tensor:
        read.append(len(other))
        return product(one, other, **rest)

    monkeypatch.setattr(torch, "mm", watched)
    stream = stream_of(repeated(generator))
    for memory_budget, widths in ((AMPLE, [min(kept, d_value) for kept in NUMBERS[0]]), (100_000, [d_value] * 7)):
        evaluation = section.kept_evaluation(stream.within(memory_budget), basis)
        assert evaluation is not None
        list(evaluation(NUMBERS[0])(0, 60))
        assert read == [n_heads * width for width in widths]
        read.clear()


@pytest.mark.parametrize("name", ATTENTION)
def test_an_output_takes_the_place_of_the_one_before(generator: Generator, name: str) -> None:
    """Memory asked for anew is not in the caches."""
    options, same_last = ATTENTION[name]
    section = attention(generator, D_IN, 5, **options)
    evaluation = section.kept_evaluation(stream_of(repeated(generator, same_last=same_last)), basis_for(generator))
    assert evaluation is not None
    held = list(evaluation(NUMBERS[0])(0, 60))
    assert len({output.data_ptr() for output in held}) == 1


def test_many_activations_have_no_tables(generator: Generator) -> None:
    section = attention(generator, D_IN, 5)
    assert section.kept_evaluation(stream_of(random(generator, 6, POSITIONS, D_IN)), basis_for(generator)) is None


@pytest.mark.parametrize("kind", ["affine", "residual_elementwise"])
def test_a_growing_sum_is_the_pass_number_by_number(generator: Generator, kind: str) -> None:
    section = (
        affine(generator, D_IN, 4) if kind == "affine" else residual_elementwise(generator, D_IN, 9, 4, functional.gelu)
    )
    activation, basis = random(generator, 8, 2, D_IN), basis_for(generator)
    numbers = range(FEATURES + 1)
    fast, slowly = (
        make(section, stream_of(activation), basis)(numbers)(0, 8) for make in (growing_sum, number_by_number)
    )
    for one, other in zip(fast, slowly, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_an_activation_is_computed_once_for_all_numbers(generator: Generator) -> None:
    """What makes hundreds of counts affordable: no further pass to the layer, or through the linear map after it."""
    asked = []
    activation, basis = random(generator, 8, 1, D_IN), basis_for(generator)

    def produce(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return activation[start:stop]

    section = residual_elementwise(generator, D_IN, 9, 4, functional.relu)
    outputs_of = kept_evaluation(section, ActivationStream(produce, 8, 2**20), basis)(range(FEATURES + 1))
    for start in (0, 4):
        list(outputs_of(start, start + 4))
    assert asked == [(0, 4), (4, 8)]


def test_few_features_are_taken_through_the_linear_map_by_themselves(generator: Generator) -> None:
    """A sum that begins with few features begins with fewer multiplications than one through all coordinates."""
    for kept, n_maps in ((0, 2), (2, 2), (8, 1)):
        into, out_of = random(generator, 10, kept), random(generator, kept, 12)
        maps = shorter((into, out_of))
        assert len(maps) == n_maps
        assert torch.allclose(reduce(torch.matmul, maps), into @ out_of)
