"""Outputs with only the first features kept: the growing sum is the slow projection."""

from __future__ import annotations

import pytest
import torch
from tiny_models import affine, random, random_activation, residual_elementwise
from torch.nn import functional

from libcore.ablation.node_outputs import GrowingSum, outputs_with_kept
from libcore.basis import Basis
from libcore.chain import Chain

D_WIDE, D_NARROW = 9, 3


@pytest.fixture
def narrowing_chain(generator: torch.Generator) -> Chain:
    return Chain(
        ("wide", "narrow", "output"),
        (
            residual_elementwise(generator, D_WIDE, 4, D_NARROW, functional.relu),
            affine(generator, D_NARROW, 2, constant_out=False),
        ),
        embed=lambda inputs: inputs,
        last_has_constant=False,
    )


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_are_those_of_the_projected_activation(generator, narrowing_chain, layer, dtype):
    chain = narrowing_chain
    d = (D_WIDE, D_NARROW)[layer]
    to_basis = random(generator, d, d)
    basis = Basis(to_basis, torch.linalg.inv(to_basis), torch.ones(d, dtype=torch.float64), True).to(dtype=dtype)
    sections = tuple(section.to(dtype=dtype) for section in chain.sections)
    chain = Chain(chain.node_layers, sections, chain.embed, last_has_constant=False)
    inputs = random_activation(generator, 7, 2, D_WIDE).to(dtype)
    output_with_kept = outputs_with_kept(chain, inputs, layer, basis, chunk=3)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4}[dtype]
    for kept in (0, 2, d, 1, 3):
        for start, stop in ((0, 3), (3, 6), (6, 7)):
            activation = chain.activation(inputs[start:stop], layer)
            expected = chain.output_from(basis.keep_first(activation, kept), layer)
            found = output_with_kept(start, stop, kept)
            assert found.dtype == dtype
            assert (found - expected).abs().max() < tolerance * (1 + expected.abs().max())


def test_growing_one_by_one_does_not_drift(generator):
    """Steps that all go up: in float32 the sum would be off by 1e-6 and more."""
    features, weight = random(generator, 5, 1, 2000).abs().float(), random(generator, 2000, 3).abs().float()
    growing = GrowingSum(features, weight)
    for kept in range(2001):
        found = growing.first(kept)
    exact = features.double() @ weight.double()
    assert (found - exact).abs().max() < 1e-7 * exact.abs().max()


def test_a_narrowing_layer_is_gone_through_once(generator, narrowing_chain):
    """What makes hundreds of counts affordable: no further pass through the wide layer."""
    passes = []
    chain = Chain(
        narrowing_chain.node_layers,
        narrowing_chain.sections,
        lambda inputs: passes.append(len(inputs)) or inputs,
        last_has_constant=False,
    )
    identity = torch.eye(D_WIDE, dtype=torch.float64)
    basis = Basis(identity, identity, torch.ones(D_WIDE, dtype=torch.float64), True)
    output_with_kept = outputs_with_kept(chain, random_activation(generator, 4, 1, D_WIDE), 0, basis, chunk=4)
    for kept in range(D_WIDE):
        output_with_kept(0, 4, kept)
    assert passes == [4]
