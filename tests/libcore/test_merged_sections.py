"""Linear maps multiplied into one another: the same function, fewer multiplications."""

from __future__ import annotations

import pytest
import torch
from section_cases import D_IN, D_OUT, SECTIONS
from tiny_models import affine, attention, largest_difference, random, residual_elementwise
from torch import Generator
from torch.nn import functional
from transformer_blocks import BLOCKS

from libcore.sections import AffineSection, LinearLast, compose
from libcore.sections.merging import AfterLinear, merged


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_followed_by_a_linear_map(generator: Generator, name: str) -> None:
    section = SECTIONS[name](generator)
    if not isinstance(section, LinearLast):
        pytest.skip("ends with no linear map")
    weight, activation = random(generator, D_OUT, 3), random(generator, 5, 3, D_IN)
    before = section(activation)
    assert largest_difference(section.followed_by(weight)(activation), before @ weight) < 1e-12
    assert torch.equal(section(activation), before)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_followed_by_a_linear_map(generator: Generator, name: str) -> None:
    block = BLOCKS[name](generator)
    activation = random(generator, 3, 4, block.residual.shape[0])
    activation[..., -1] = 1.0
    weight = random(generator, block.residual.shape[1], 3)
    expected = block(activation) @ weight
    assert largest_difference(block.followed_by(weight)(activation), expected) < 1e-11
    assert type(block.followed_by(weight)) is type(block)


def test_an_mlp_writes_logits_and_is_written_to_by_what_comes_before(generator: Generator) -> None:
    wide, narrow, hidden, logits = 12, 8, 9, 3
    sections = (
        AffineSection(random(generator, narrow, wide)),
        residual_elementwise(generator, wide, hidden, wide, functional.relu),
        affine(generator, wide, logits, constant_out=False),
    )
    found = merged(sections)
    assert [type(section) for section in found] == [AffineSection, AfterLinear]
    assert found[0].weight.shape == (narrow, hidden + logits)
    activation = random(generator, 5, 2, narrow)
    assert largest_difference(compose(found)(activation), compose(sections)(activation)) < 1e-11
    assert largest_difference(compose(merged([compose(sections)]))(activation), compose(sections)(activation)) < 1e-11


def test_a_narrow_stream_is_not_multiplied_out(generator: Generator) -> None:
    """From a wide layer through a narrow one to another wide one: two thin products, not one thick."""
    sections = (AffineSection(random(generator, 20, 2)), AffineSection(random(generator, 2, 20)))
    assert merged(sections) == sections


def test_attention_before_an_mlp_keeps_its_tables(generator: Generator) -> None:
    sections = (
        attention(generator, D_IN, D_IN, query_positions=(-1,)),
        residual_elementwise(generator, D_IN, 4, D_IN, functional.relu),
        affine(generator, D_IN, 2, constant_out=False),
    )
    activation = random(generator, 5, 3, D_IN)
    found = merged(sections)
    assert type(found[0]) is type(sections[0])
    assert largest_difference(compose(found)(activation), compose(sections)(activation)) < 1e-11
