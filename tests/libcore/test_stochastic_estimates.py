"""Probes: unbiased, converging as 1/sqrt(R), telling their own error, the same however the data are cut up."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from section_cases import RULES, SECTIONS, Case, case_of
from test_memory_budget import assert_budget_is_kept
from tiny_models import AMPLE, BUDGETS, basis_of, largest_difference, random, random_activation, stream_of
from torch import Generator, Tensor

from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.estimators.stochastic import Estimate, Probes, estimate_of, stochastic_edges, stochastic_jacobian_gram
from libcore.quadrature import GRADIENT, Quadrature
from libcore.sections import FunctionSection

POSITIONS = 5
COUNTS, SEEDS = (4, 16, 64), range(6)


def gram(case: Case, probes: Probes, quadrature: Quadrature = GRADIENT, memory_budget: int = AMPLE) -> Estimate:
    stream = stream_of(case.activation, memory_budget)
    return stochastic_jacobian_gram(case.section, stream, case.next_basis, quadrature, probes)


def edges(case: Case, probes: Probes, quadrature: Quadrature = GRADIENT, memory_budget: int = AMPLE) -> Estimate:
    stream = stream_of(case.activation, memory_budget)
    return stochastic_edges(case.section, stream, case.basis, case.next_basis, quadrature, probes)


def exact(case: Case, quantity: Callable, quadrature: Quadrature = GRADIENT) -> Tensor:
    """What `gram` or `edges` estimates, by differentiation."""
    stream = stream_of(case.activation)
    if quantity is gram:
        return exact_jacobian_gram(case.section, stream, case.next_basis, quadrature)
    return exact_edges(case.section, stream, case.basis, case.next_basis, quadrature)


def mean_square(numbers: list[float]) -> float:
    return sum(number**2 for number in numbers) / len(numbers)


def relative_distance(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ("name", "quantity", "over"),
    [
        ("attention", gram, "positions_and_features"),
        ("attention", gram, "positions"),
        ("attention", edges, "positions"),
        ("function", gram, "positions"),
        ("function", edges, "positions"),
        ("gelu", gram, "positions_and_features"),
        ("gelu", edges, "positions"),
    ],
)
def test_error_falls_as_one_over_the_root_of_the_probes(generator: Generator, name, quantity, over) -> None:
    """An estimate with a bias would stay at it; one that knows its error tells it."""
    case = case_of(SECTIONS[name](generator), generator, n=3, positions=POSITIONS)
    expected = exact(case, quantity)
    errors: list[float] = []
    told: list[float] = []
    for n in COUNTS:
        estimates = [quantity(case, Probes(n, over, seed)) for seed in SEEDS]
        errors.append(mean_square([relative_distance(one.value, expected) for one in estimates]) ** 0.5)
        told.append(mean_square([one.relative_error for one in estimates]) ** 0.5)
    ratios = torch.tensor(told) / torch.tensor(errors)
    assert 2 / 3 < ratios.log().mean().exp().item() < 3 / 2
    x, y = torch.tensor([COUNTS, errors], dtype=torch.float64).log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("quantity", "over"), [(gram, "positions"), (gram, "positions_and_features"), (edges, "")])
def test_the_mean_over_many_probes_is_the_exact_value_on_every_path(generator, quantity, over, rule) -> None:
    case = case_of(SECTIONS["attention"](generator), generator, n=100, positions=POSITIONS)
    quadrature = RULES[rule][0]
    estimate = quantity(case, Probes(40, over or "positions"), quadrature)
    distance = relative_distance(estimate.value, exact(case, quantity, quadrature))
    assert distance < 3 * estimate.relative_error
    assert 0 < estimate.relative_error < 0.1


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["attention", "attention_read_at_some_positions", "gelu", "function"])
def test_signs_over_a_single_position_are_exact(generator: Generator, name: str, rule: str, n: int) -> None:
    """There is nothing to cancel: `φ² = 1`."""
    case = case_of(SECTIONS[name](generator), generator, positions=1)
    if name == "attention_read_at_some_positions":
        case = case_of(SECTIONS["attention_wide_values"](generator), generator, positions=3)
    quadrature = RULES[rule][0]
    for quantity in (gram, edges):
        estimate = quantity(case, Probes(n, "positions"), quadrature)
        assert largest_difference(estimate.value, exact(case, quantity, quadrature)) < 1e-12
        assert estimate.relative_error < 1e-12
        assert estimate.value.dtype == torch.float64


def test_signs_over_positions_are_exact_where_positions_do_not_meet(generator: Generator) -> None:
    """An elementwise section's output position depends on its own input position alone, and eq. 4 sums over those."""
    case = case_of(SECTIONS["gelu"](generator), generator, positions=POSITIONS)
    assert largest_difference(gram(case, Probes(2, "positions")).value, exact(case, gram)) < 1e-12
    assert gram(case, Probes(2, "positions_and_features")).relative_error > 0.01
    assert edges(case, Probes(2, "positions")).relative_error > 0.01


def test_edges_take_signs_over_positions_whatever_was_chosen(generator: Generator) -> None:
    case = case_of(SECTIONS["attention"](generator), generator)
    both = [edges(case, Probes(4, over)).value for over in ("positions", "positions_and_features")]
    assert torch.equal(*both)


@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("n", [4, 5])
@pytest.mark.parametrize(("quantity", "over"), [(gram, "positions"), (gram, "positions_and_features"), (edges, "")])
def test_memory_budget_changes_no_number(generator, quantity, over, n, memory_budget) -> None:
    case = case_of(SECTIONS["attention"](generator), generator, n=7, next_features=19)
    probes = Probes(n, over or "positions")
    whole, cut = quantity(case, probes), quantity(case, probes, memory_budget=memory_budget)
    assert largest_difference(cut.value, whole.value) < 1e-13
    assert cut.relative_error == pytest.approx(whole.relative_error, rel=1e-10)


@pytest.mark.parametrize(
    ("quantity", "over", "n", "next_features", "examples"),
    [
        (gram, "positions", 2, 4, 150),
        (gram, "positions", 4, 60, 3),
        (gram, "positions_and_features", 16, 4, 30),
        (gram, "positions_and_features", 4, 60, 12),
        (edges, "", 2, 4, 150),
        (edges, "", 4, 60, 3),
    ],
)
def test_memory_budget_is_kept(generator, quantity, over, n, next_features, examples) -> None:
    case = case_of(SECTIONS["attention"](generator), generator, n=examples, next_features=next_features)
    probes = Probes(n, over or "positions")
    assert_budget_is_kept(lambda budget: quantity(case, probes, memory_budget=budget))


def test_a_seed_and_a_name_repeat_and_others_differ(generator: Generator) -> None:
    case = case_of(SECTIONS["attention"](generator), generator)
    probes = Probes(4, seed=1)
    assert torch.equal(gram(case, probes).value, gram(case, Probes(4, seed=1)).value)
    for other in (Probes(4, seed=2), probes.named("edges")):
        assert relative_distance(gram(case, other).value, gram(case, probes).value) > 1e-3


def test_signs_are_even_and_every_example_and_probe_has_its_own() -> None:
    n, examples, values = 6, 50, 300
    signs = Probes(n).signs(range(n), range(examples), values).double().flatten(0, 1)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    overlap = signs @ signs.T / values
    assert abs(signs.mean().item()) < 5 / math.sqrt(signs.numel())
    assert (overlap - torch.eye(n * examples)).abs().max().item() < 6 / math.sqrt(values)


def test_signs_of_a_part_are_part_of_the_signs() -> None:
    probes, values = Probes(6), 300
    whole = probes.signs(range(6), range(20), values)
    assert torch.equal(probes.signs(range(2, 4), range(7, 11), values), whole[2:4, 7:11])


@pytest.mark.parametrize("n", [2, 3, 8, 9, 16, 22, 101])
def test_blocks_hold_every_probe_once_within_its_half(n: int) -> None:
    blocks = list(Probes(n).blocks(8))
    assert [probe for _, block in blocks for probe in block] == list(range(n))
    assert len({len(block) for _, block in blocks}) == 1
    assert all(half == int(probe >= n // 2) for half, block in blocks for probe in block)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9])
def test_the_error_told_is_the_standard_error_of_the_mean(generator: Generator, n: int) -> None:
    """Of independent numbers of variance 1 the mean has variance `1/n`, whether or not the halves are equal."""
    drawn = random(generator, n, 200, 200)
    estimate = estimate_of(torch.stack([drawn[: n // 2].sum(0), drawn[n // 2 :].sum(0)]), n)
    assert largest_difference(estimate.value, drawn.mean(0)) < 1e-14
    error = estimate.relative_error * estimate.value.norm().item() / 200
    assert error**2 == pytest.approx(1 / n, rel=0.025)


def test_float32_is_summed_in_float64(generator: Generator) -> None:
    section = FunctionSection(lambda f: torch.tanh(f[..., :3]).cumsum(1))
    activation, next_basis = random_activation(generator, 6, 4, 4), basis_of(random(generator, 3, 4))
    arguments = (stream_of(activation.float()), next_basis.to(dtype=torch.float32), GRADIENT, Probes(4))
    single = stochastic_jacobian_gram(section, *arguments)
    double = stochastic_jacobian_gram(section, stream_of(activation), next_basis, GRADIENT, Probes(4))
    assert single.value.dtype == torch.float64
    assert largest_difference(single.value, double.value) < 1e-5


def test_a_section_that_nothing_depends_on_has_no_error(generator: Generator) -> None:
    case = case_of(FunctionSection(lambda f: 0.0 * f[..., :3]), generator)
    estimate = gram(case, Probes(2))
    assert not estimate.value.any()
    assert estimate.relative_error == 0.0


def test_a_single_probe_has_no_halves_and_is_refused() -> None:
    with pytest.raises(ValueError, match="n=1 probes: expected at least 2"):
        Probes(1)
