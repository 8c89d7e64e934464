"""Signed means of attributions: closed forms equal differentiation and loops, means add up, shares and slopes."""

from __future__ import annotations

import pytest
import slow_reference
import torch
from section_cases import RULES, SECTIONS, Case, case_of
from tiny_models import AMPLE, basis_of, largest_difference, random, random_activation, random_chain, stream_of
from transformer_blocks import BLOCKS, D

from libcore.basis import Basis
from libcore.estimators import signed as signed_module
from libcore.estimators.signed import SignedEdges, chain_signed_edges, signed_edges
from libcore.estimators.signed_blocks import has_signed_sums
from libcore.quadrature import GRADIENT, Quadrature
from libcore.sections import AffineSection, NormalisedAttention


def found_in(case: Case, quadrature: Quadrature, memory_budget: int = AMPLE) -> SignedEdges:
    return signed_edges(
        case.section, stream_of(case.activation, memory_budget), case.basis, case.next_basis, quadrature
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SECTIONS)
def test_equals_loops(generator: torch.Generator, name: str, rule: str) -> None:
    case = case_of(SECTIONS[name](generator), generator)
    quadrature, slow_rule = RULES[rule]
    function = slow_reference.of_one_example(case.section, case.to_basis_next, case.basis.from_basis)
    mean, slope = slow_reference.signed_means(function, case.features, slow_rule)
    found = found_in(case, quadrature)
    assert largest_difference(found.mean, mean) < 1e-12
    assert largest_difference(found.slope, slope) < 1e-12
    assert found.n_examples == len(case.activation)


@pytest.mark.parametrize("name", ["gelu", "attention", "attention_read_at_some_positions"])
def test_means_add_up_to_the_mean_change_of_the_target(generator: torch.Generator, name: str) -> None:
    case = case_of(SECTIONS[name](generator), generator)
    case.activation[..., :-1] /= 3  # small enough that forty points resolve the path
    nothing = torch.zeros_like(case.activation)
    change = ((case.section(case.activation) - case.section(nothing)) @ case.to_basis_next).mean((0, 1))
    found = found_in(case, Quadrature.of("gauss_legendre", 40))
    assert largest_difference(found.mean.sum(1), change) < 1e-8
    assert found.share.abs().sum(1) == pytest.approx([1.0] * len(change))
    assert torch.equal(found.share.sign(), found.mean.sign())


def test_an_affine_section_s_slopes_are_its_weights_between_features(generator: torch.Generator) -> None:
    case = case_of(SECTIONS["affine"](generator), generator)
    identity = torch.eye(case.activation.shape[-1], dtype=torch.float64)
    weights = case.basis.from_basis @ case.section(identity[None])[0] @ case.to_basis_next
    found = found_in(case, GRADIENT)
    assert largest_difference(found.slope, weights.T) < 1e-12
    assert found.mean[:, 1:].abs().max() < 1e-12 < found.mean[:, 0].abs().max(), "sources are centred: no mean"


def test_an_affine_section_s_closed_form_is_differentiation(generator: torch.Generator) -> None:
    case = case_of(SECTIONS["affine"](generator), generator, positions=3)
    assert isinstance(case.section, AffineSection)
    arguments = stream_of(case.activation, 1), case.basis, case.next_basis
    closed = signed_module.affine_signed_edges(case.section, *arguments)
    expected = signed_module.differentiated_signed_edges(case.section, *arguments, GRADIENT)
    assert largest_difference(closed.slope, expected.slope) < 1e-12
    assert largest_difference(closed.mean, expected.mean) < 1e-12
    assert closed.n_examples == expected.n_examples


@pytest.mark.parametrize("rule", ["gradient", "gauss_legendre"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_s_closed_form_is_differentiation(generator: torch.Generator, name: str, rule: str) -> None:
    section, activation = BLOCKS[name](generator), random_activation(generator, 7, 5, D)
    basis = basis_of(random(generator, D, D))
    next_basis = basis_of(random(generator, section.residual.shape[1], 4))
    # What a normalised output takes is another number for every pair of positions.
    assert has_signed_sums(section) != any(isinstance(branch, NormalisedAttention) for branch in section.branches)
    arguments = stream_of(activation, AMPLE), basis, next_basis, RULES[rule][0]
    closed = signed_edges(section, *arguments)
    expected = signed_module.differentiated_signed_edges(section, *arguments)
    assert largest_difference(closed.slope, expected.slope) < 1e-12
    assert largest_difference(closed.mean, expected.mean) < 1e-12
    assert closed.n_examples == expected.n_examples


def test_a_block_is_not_differentiated(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One backward pass per output feature was half of what a run took outside its stages."""
    monkeypatch.setattr(signed_module, "JacobianRows", None)
    for name in ("relu", "attention"):
        found_in(case_of(SECTIONS[name](generator), generator), GRADIENT)
    with pytest.raises(TypeError):
        found_in(case_of(SECTIONS["function"](generator), generator), GRADIENT)


def test_chunks_do_not_matter(generator: torch.Generator) -> None:
    case = case_of(SECTIONS["gelu"](generator), generator)
    whole, single = found_in(case, GRADIENT), found_in(case, GRADIENT, memory_budget=1)
    assert largest_difference(whole.mean, single.mean) < 1e-12
    assert largest_difference(whole.slope, single.slope) < 1e-12


def test_a_source_that_is_zero_has_no_slope_and_a_target_that_does_not_change_no_shares(
    generator: torch.Generator,
) -> None:
    case = case_of(SECTIONS["affine"](generator), generator)
    case.activation[..., 0] = 0
    zero = Basis(torch.eye(4).double(), torch.eye(4).double(), torch.ones(4).double(), True)
    nothing = Basis(0 * case.next_basis.to_basis, case.next_basis.from_basis, case.next_basis.importance, False)
    found = signed_edges(case.section, stream_of(case.activation, AMPLE), zero, nothing, GRADIENT)
    assert found.slope[:, 0].tolist() == [0.0] * nothing.n_features
    assert torch.equal(found.share, torch.zeros_like(found.mean))


def test_a_chain_is_averaged_over_as_many_examples_as_the_work_allows(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 5, 3, 4)
    bases = {}
    for layer, activation in zip(chain.node_layers, chain.activations(inputs), strict=True):
        identity = torch.eye(activation.shape[-1], dtype=torch.float64)
        bases[layer] = Basis(identity, identity, torch.ones(len(identity)), chain.has_constant(layer))
    every = chain_signed_edges(chain, inputs, bases, GRADIENT, AMPLE)
    assert {layer: found.n_examples for layer, found in every.items()} == dict.fromkeys(
        chain.node_layers[:-1], len(inputs)
    )
    positions = chain.activation(inputs, 0).shape[1]
    most = 2 * positions * bases[chain.node_layers[1]].n_features
    monkeypatch.setattr(signed_module, "MOST_WORK", most)
    few = chain_signed_edges(chain, inputs, bases, GRADIENT, AMPLE)[chain.node_layers[0]]
    of_two = chain_signed_edges(chain, inputs[:2], bases, GRADIENT, AMPLE)[chain.node_layers[0]]
    assert few.n_examples == 2
    assert torch.equal(few.mean, of_two.mean)
