"""`auto`, `closed_form`, `exact` and `stochastic`: which one answers, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from section_cases import CLOSED_FORM, SECTIONS, case_of
from tiny_models import AMPLE, basis_of, largest_difference, random, random_activation, random_chain, stream_of

from libcore.basis import identity_basis
from libcore.estimators import ESTIMATORS, Estimator, edges, jacobian_gram, use_closed_form
from libcore.estimators.stochastic import Probes, stochastic_edges, stochastic_jacobian_gram
from libcore.graph import interaction_edges
from libcore.methods import FitSettings
from libcore.methods.lib import fit_lib, lib_basis
from libcore.quadrature import GRADIENT
from libcore.statistics import chain_statistics


@pytest.mark.parametrize("name", SECTIONS)
def test_auto_takes_the_closed_form_where_there_is_one(generator: torch.Generator, name: str) -> None:
    section = SECTIONS[name](generator)
    assert use_closed_form(section, "auto") == (name in CLOSED_FORM)
    assert not use_closed_form(section, "exact")
    assert not use_closed_form(section, "stochastic")


def test_a_closed_form_that_does_not_exist_is_refused_by_name(generator: torch.Generator) -> None:
    case = case_of(SECTIONS["composed"](generator), generator)
    identity = identity_basis(torch.ones(3, dtype=torch.float64), has_constant=False)
    stream = stream_of(case.activation)
    with pytest.raises(ValueError, match="ComposedSection has no closed form"):
        jacobian_gram(case.section, stream, identity, GRADIENT, "closed_form")
    with pytest.raises(ValueError, match="ComposedSection has no closed form"):
        edges(case.section, stream, case.basis, identity, GRADIENT, "closed_form")


@pytest.mark.parametrize("name", SECTIONS)
def test_exact_and_closed_form_agree(generator: torch.Generator, name: str) -> None:
    case = case_of(SECTIONS[name](generator), generator)
    basis, stream = basis_of(random(generator, 3, 4)), stream_of(case.activation)
    choices: list[Estimator] = ["auto", "closed_form"] if name in CLOSED_FORM else ["auto"]
    for estimator in choices:
        assert (
            largest_difference(
                jacobian_gram(case.section, stream, basis, GRADIENT, estimator),
                jacobian_gram(case.section, stream, basis, GRADIENT, "exact"),
            )
            < 1e-10
        )
        assert (
            largest_difference(
                edges(case.section, stream, case.basis, basis, GRADIENT, estimator),
                edges(case.section, stream, case.basis, basis, GRADIENT, "exact"),
            )
            < 1e-10
        )


@pytest.mark.parametrize("name", ["affine", "attention", "function"])
def test_stochastic_takes_the_probes_and_tells_its_error(generator: torch.Generator, name: str) -> None:
    """Probes everywhere, closed form or not: the value and the error are those of the estimate itself."""
    case = case_of(SECTIONS[name](generator), generator)
    basis, stream, probes = basis_of(random(generator, 3, 4)), stream_of(case.activation), Probes(n=6, seed=3)
    told: list[float] = []
    gram = jacobian_gram(case.section, stream, basis, GRADIENT, "stochastic", probes, told.append)
    strength = edges(case.section, stream, case.basis, basis, GRADIENT, "stochastic", probes, told.append)
    expected_gram = stochastic_jacobian_gram(case.section, stream, basis, GRADIENT, probes)
    expected_edges = stochastic_edges(case.section, stream, case.basis, basis, GRADIENT, probes)
    assert torch.equal(gram, expected_gram.value)
    assert torch.equal(strength, expected_edges.value)
    assert told == [expected_gram.relative_error, expected_edges.relative_error]
    assert all(error > 1e-3 for error in told)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_only_stochastic_tells_an_error(generator: torch.Generator, estimator: Estimator) -> None:
    case = case_of(SECTIONS["attention"](generator), generator)
    basis, stream = basis_of(random(generator, 3, 4)), stream_of(case.activation)
    told: list[float] = []
    jacobian_gram(case.section, stream, basis, GRADIENT, estimator, on_error=told.append)
    edges(case.section, stream, case.basis, basis, GRADIENT, estimator, on_error=told.append)
    assert len(told) == (2 if estimator == "stochastic" else 0)


def test_a_chain_takes_other_signs_for_every_layer_and_purpose(generator: torch.Generator) -> None:
    """Bases and edges by the settings' probes, each layer's error told by its name."""
    chain, inputs = random_chain(generator), random_activation(generator, 40, 3, 4)
    statistics, probes = chain_statistics(chain, inputs, AMPLE), Probes(n=6, over="positions", seed=5)
    told: dict[str, float] = {}
    settings = FitSettings(estimator="stochastic", probes=probes, on_error=told.__setitem__)
    bases = fit_lib(chain, inputs, statistics, settings)
    assert set(told) == set(chain.node_layers[:-1])
    stream, next_layer = chain.stream(inputs, 0, AMPLE), chain.node_layers[1]
    arguments = (chain.sections[0], stream, bases[next_layer], GRADIENT)
    estimate = stochastic_jacobian_gram(*arguments, probes.named("basis/before"))
    assert told["before"] == estimate.relative_error
    assert told["before"] != stochastic_jacobian_gram(*arguments, probes).relative_error
    importance = lib_basis(statistics["before"], estimate.value, settings.truncation, torch.float64).importance
    assert torch.equal(bases["before"].importance, importance)

    told.clear()
    strengths = interaction_edges(chain, inputs, bases, GRADIENT, "stochastic", AMPLE, probes, told.__setitem__)
    assert tuple(told) == chain.node_layers[:-1]
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        whole = (bases[layer], bases[next_layer], GRADIENT)
        stream = chain.stream(inputs, index, AMPLE)
        estimate = stochastic_edges(chain.sections[index], stream, *whole, probes.named(f"edges/{layer}"))
        assert torch.equal(strengths[layer], estimate.value)
        assert told[layer] == estimate.relative_error


def test_the_names_are_those_of_the_type() -> None:
    assert get_args(Estimator) == ESTIMATORS
