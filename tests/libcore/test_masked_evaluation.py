"""Every output feature from its own masked inputs: all fast forms equal one pass per output feature."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import slow_reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from section_cases import D_IN, D_OUT, SECTIONS, case_of
from tiny_models import AMPLE, BUDGETS, attention, basis_of, largest_difference, random, random_activation
from torch import Generator, Tensor
from transformer_blocks import BLOCKS, D, rescaling

from libcore.basis import Basis
from libcore.sections import AttentionSection, FastMaskedEvaluation, MaskedEvaluation, Section
from libcore.sections.attention.masked import masked_attention_evaluation
from libcore.sections.attention.tables import DistinctRows
from libcore.sections.masked import evaluate_mask_by_mask, masked_evaluation

FEATURES_IN, FEATURES_OUT = 5, 7
POSITIONS = 3


def random_mask(generator: Generator) -> Tensor:
    return torch.rand(FEATURES_OUT, FEATURES_IN, generator=generator) < 0.5


def with_duplicates(generator: Generator) -> Tensor:
    return random_mask(generator)[torch.tensor([0, 1, 0, 2, 1, 0, 3])]


MASKS: dict[str, Callable[[Generator], Tensor]] = {
    "random": random_mask,
    "all_kept": lambda generator: torch.ones(FEATURES_OUT, FEATURES_IN, dtype=torch.bool),
    "none_kept": lambda generator: torch.zeros(FEATURES_OUT, FEATURES_IN, dtype=torch.bool),
    "duplicates": with_duplicates,
    "one_output_keeps_nothing": lambda generator: random_mask(generator) & (torch.arange(FEATURES_OUT) != 2)[:, None],
    "last_input_dropped": lambda generator: random_mask(generator) & (torch.arange(FEATURES_IN) != FEATURES_IN - 1),
}


def bases(generator: Generator) -> tuple[Basis, Basis]:
    """Of a layer and the next, neither of them square."""
    return basis_of(from_basis=random(generator, FEATURES_IN, D_IN)), basis_of(random(generator, D_OUT, FEATURES_OUT))


def tables_of(
    section: AttentionSection, features: Tensor, basis: Basis, next_basis: Basis, memory_budget: int
) -> MaskedEvaluation | None:
    positions = section.positions_of(features)
    return masked_attention_evaluation(
        section.residual, section.attention, positions, features, basis, next_basis, memory_budget
    )


def repeated_features(generator: Generator, n: int = 40, tokens: int = 3) -> Tensor:
    """Features that take one value per token and position."""
    table = random(generator, POSITIONS, tokens, FEATURES_IN)
    token = torch.randint(tokens, (n, POSITIONS), generator=generator)
    return table[torch.arange(POSITIONS), token]


@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", SECTIONS)
def test_it_is_one_pass_per_output_feature(generator: Generator, name: str, mask: str, memory_budget: int) -> None:
    section, kept = SECTIONS[name](generator), MASKS[mask](generator)
    features, (basis, next_basis) = random(generator, 6, POSITIONS, FEATURES_IN), bases(generator)
    expected = slow_reference.masked_outputs(section, features, basis.from_basis, next_basis.to_basis, kept)
    evaluate = masked_evaluation(section, features, basis, next_basis, memory_budget)
    assert torch.allclose(evaluate(kept), expected, rtol=1e-12, atol=1e-12)
    slow = evaluate_mask_by_mask(section, features, basis, next_basis, memory_budget)
    assert torch.allclose(slow(kept), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("memory_budget", [1, AMPLE])
@pytest.mark.parametrize("name", [*BLOCKS, "rescaling", "rescaling of LayerNorm"])
def test_it_is_one_pass_per_output_feature_in_every_block(generator: Generator, name: str, memory_budget: int) -> None:
    """Few inputs kept, few left out, all and none; of some output features as of all."""
    rescaled = name.startswith("rescaling")
    section = rescaling(generator, "LayerNorm" in name) if rescaled else BLOCKS[name](generator)
    activation = random_activation(generator, 3, 4, D + 1 if rescaled else D)
    basis = basis_of(from_basis=random(generator, 9, activation.shape[-1]))
    next_basis = basis_of(random(generator, section(activation).shape[-1], FEATURES_OUT))
    features = random(generator, 3, 4, 9)
    kept = torch.rand(FEATURES_OUT, 9, generator=generator) < torch.tensor([0.2, 0.8, 0.0, 1.0, 0.5, 0.2, 0.8])[:, None]
    expected = slow_reference.masked_outputs(section, features, basis.from_basis, next_basis.to_basis, kept)
    evaluate = masked_evaluation(section, features, basis, next_basis, memory_budget)
    assert isinstance(section, FastMaskedEvaluation)
    assert torch.allclose(evaluate(kept), expected, rtol=1e-10, atol=1e-10)
    some = torch.tensor([5, 1])
    assert torch.allclose(evaluate(kept[some], some), expected[..., some], rtol=1e-10, atol=1e-10)


def attention_sections(generator: Generator) -> dict[str, AttentionSection]:
    return {
        "causal": attention(generator, D_IN, D_OUT),
        "bidirectional": attention(generator, D_IN, D_OUT, causal=False),
        "last_position": attention(generator, D_IN, D_OUT, query_positions=(-1,)),
        "two_positions": attention(generator, D_IN, D_OUT, query_positions=(2, 1), causal=False),
    }


@pytest.mark.parametrize("memory_budget", [6_400, AMPLE])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", ["causal", "bidirectional", "last_position", "two_positions"])
def test_attention_tables_over_repeated_activations(
    generator: Generator, name: str, mask: str, memory_budget: int
) -> None:
    section, kept = attention_sections(generator)[name], MASKS[mask](generator)
    features, (basis, next_basis) = repeated_features(generator), bases(generator)
    tables = tables_of(section, features, basis, next_basis, memory_budget)
    assert tables is not None
    expected = slow_reference.masked_outputs(section, features, basis.from_basis, next_basis.to_basis, kept)
    assert torch.allclose(tables(kept), expected, rtol=1e-12, atol=1e-12)
    chosen = masked_evaluation(section, features, basis, next_basis, memory_budget)
    assert torch.equal(chosen(kept), tables(kept))


def test_distinct_activations_have_no_tables(generator: Generator) -> None:
    features, (basis, next_basis) = random(generator, 6, POSITIONS, FEATURES_IN), bases(generator)
    section = attention(generator, D_IN, D_OUT)
    assert tables_of(section, features, basis, next_basis, AMPLE) is None


def test_tables_are_no_larger_than_the_batch(generator: Generator) -> None:
    section, (basis, next_basis) = attention(generator, D_IN, D_OUT), bases(generator)
    features = repeated_features(generator, n=400, tokens=4)
    assert tables_of(section, features, basis, next_basis, AMPLE) is not None
    assert tables_of(section, features, basis, next_basis, memory_budget=5_000) is None
    few = features[:15]
    assert len(few[:, 0].unique(dim=0)) == 4
    assert tables_of(section, few, basis, next_basis, AMPLE) is None


def test_distinct_rows_give_the_activations_back(generator: Generator) -> None:
    activation = repeated_features(generator)[:, 0]
    distinct = DistinctRows.of(activation)
    assert torch.equal(distinct.rows[distinct.index], activation)
    assert len(distinct.rows) == 3


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), name=st.sampled_from(["gelu", "attention", "affine"]))
def test_any_density_of_masks(seed: int, share: float, name: str) -> None:
    generator = Generator().manual_seed(seed)
    section: Section = SECTIONS[name](generator)
    features, (basis, next_basis) = random(generator, 4, POSITIONS, FEATURES_IN), bases(generator)
    mask = torch.rand(FEATURES_OUT, FEATURES_IN, generator=generator) < share
    expected = slow_reference.masked_outputs(section, features, basis.from_basis, next_basis.to_basis, mask)
    evaluate = masked_evaluation(section, features, basis, next_basis, memory_budget=5000)
    assert torch.allclose(evaluate(mask), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SECTIONS)
def test_one_evaluation_serves_many_masks(generator: Generator, name: str) -> None:
    section = SECTIONS[name](generator)
    features, (basis, next_basis) = random(generator, 4, POSITIONS, FEATURES_IN), bases(generator)
    evaluate = masked_evaluation(section, features, basis, next_basis, AMPLE)
    masks = [make(generator) for make in MASKS.values()]
    first = [evaluate(mask) for mask in masks]
    assert all(torch.equal(evaluate(mask), output) for mask, output in zip(masks, first, strict=True))


@pytest.mark.parametrize("outputs", [[4], [0, 3, 6], list(range(FEATURES_OUT))])
@pytest.mark.parametrize("name", [*SECTIONS, "attention_tables"])
def test_some_outputs_are_as_among_all(generator: Generator, name: str, outputs: list[int]) -> None:
    of_tables = name == "attention_tables"
    section = attention(generator, D_IN, D_OUT) if of_tables else SECTIONS[name](generator)
    features = repeated_features(generator) if of_tables else random(generator, 4, POSITIONS, FEATURES_IN)
    evaluate = masked_evaluation(section, features, *bases(generator), AMPLE)
    chosen, mask = torch.tensor(outputs), random_mask(generator)
    assert torch.allclose(evaluate(mask[chosen], chosen), evaluate(mask)[..., chosen], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["affine", "gelu", "attention", "attention_bidirectional"])
def test_sections_with_a_fast_form_say_so(generator: Generator, name: str) -> None:
    assert isinstance(SECTIONS[name](generator), FastMaskedEvaluation)


def test_keeping_everything_is_the_section_itself(generator: Generator) -> None:
    case = case_of(SECTIONS["attention"](generator), generator)
    evaluate = masked_evaluation(case.section, case.features, case.basis, case.next_basis, AMPLE)
    everything = torch.ones(4, case.basis.n_features, dtype=torch.bool)
    assert largest_difference(evaluate(everything), case.section(case.activation) @ case.to_basis_next) < 1e-12
