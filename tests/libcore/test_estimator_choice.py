"""`auto`, `closed_form` and `exact`: which one answers, and what is refused."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from section_cases import CLOSED_FORM, SECTIONS, case_of
from tiny_models import largest_difference, random, stream_of

from libcore.basis import Basis, identity_basis
from libcore.estimators import ESTIMATORS, Estimator, edges, jacobian_gram, use_closed_form
from libcore.quadrature import GRADIENT


def next_basis(to_basis: torch.Tensor) -> Basis:
    return Basis(to_basis, to_basis.T, torch.ones(to_basis.shape[1], dtype=torch.float64), has_constant=False)


@pytest.mark.parametrize("name", SECTIONS)
def test_auto_takes_the_closed_form_where_there_is_one(generator: torch.Generator, name: str) -> None:
    section = SECTIONS[name](generator)
    assert use_closed_form(section, "auto") == (name in CLOSED_FORM)
    assert not use_closed_form(section, "exact")


def test_a_closed_form_that_does_not_exist_is_refused_by_name(generator: torch.Generator) -> None:
    case = case_of(SECTIONS["composed"](generator), generator)
    identity = identity_basis(torch.ones(3, dtype=torch.float64), has_constant=False)
    stream = stream_of(case.activation)
    with pytest.raises(ValueError, match="ComposedSection has no closed form"):
        jacobian_gram(case.section, stream, identity, GRADIENT, "closed_form")
    with pytest.raises(ValueError, match="ComposedSection has no closed form"):
        edges(case.section, stream, case.basis, identity, GRADIENT, "closed_form")


@pytest.mark.parametrize("name", SECTIONS)
def test_all_estimators_agree(generator: torch.Generator, name: str) -> None:
    case = case_of(SECTIONS[name](generator), generator)
    basis, stream = next_basis(random(generator, 3, 4)), stream_of(case.activation)
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


def test_the_names_are_those_of_the_type() -> None:
    assert get_args(Estimator) == ESTIMATORS
