"""One interface over the ways to compute Jacobian Grams and edges; `auto` picks per section.

`closed_form` and `exact` compute the same numbers (METHOD.md 5); they are tested equal to 1e-10 in float64.
`stochastic` estimates them by random probes for every section, also where a closed form would be cheaper, and says how
far off it may be; `auto` never takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.estimators.stochastic import PROBES, Probes, stochastic_edges, stochastic_jacobian_gram
from libcore.jacobian_factor import JacobianFactor
from libcore.names import refuse_other
from libcore.quadrature import Quadrature
from libcore.sections import ClosedForm, FactoredJacobian, Section
from libcore.streams import ActivationStream

Estimator = Literal["auto", "closed_form", "exact", "stochastic"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)
OnError = Callable[[float], None]
"""Called with an estimate's own relative error, where there is sampling."""


def ignore_error(relative_error: float) -> None:
    """Where nobody asks."""


def jacobian_gram(
    section: Section,
    stream: ActivationStream,
    next_basis: Basis,
    quadrature: Quadrature,
    estimator: Estimator = "auto",
    probes: Probes = PROBES,
    on_error: OnError = ignore_error,
) -> Float[Tensor, "d_in d_in"]:
    """`M'` of METHOD.md eq. 4 in float64. Raises ValueError where a closed form is asked for and there is none."""
    if estimator == "stochastic":
        estimate = stochastic_jacobian_gram(section, stream, next_basis, quadrature, probes)
        on_error(estimate.relative_error)
        return estimate.value
    if use_closed_form(section, estimator):
        assert isinstance(section, ClosedForm)
        return section.closed_form_jacobian_gram(stream, next_basis, quadrature)
    return exact_jacobian_gram(section, stream, next_basis, quadrature)


def jacobian_factor(
    section: Section,
    stream: ActivationStream,
    next_basis: Basis,
    quadrature: Quadrature,
    estimator: Estimator = "auto",
) -> JacobianFactor | None:
    """`M'` of METHOD.md eq. 4 by its factors, where the section's closed form has few columns; None elsewhere."""
    if use_closed_form(section, estimator) and isinstance(section, FactoredJacobian):
        return section.jacobian_factor(stream, next_basis, quadrature)
    return None


def edges(
    section: Section,
    stream: ActivationStream,
    basis: Basis,
    next_basis: Basis,
    quadrature: Quadrature,
    estimator: Estimator = "auto",
    probes: Probes = PROBES,
    on_error: OnError = ignore_error,
) -> Float[Tensor, "feature_out feature_in"]:
    """Squared interaction strengths `E` of METHOD.md eq. 8 in float64; raises as `jacobian_gram`."""
    if estimator == "stochastic":
        estimate = stochastic_edges(section, stream, basis, next_basis, quadrature, probes)
        on_error(estimate.relative_error)
        return estimate.value
    if use_closed_form(section, estimator):
        assert isinstance(section, ClosedForm)
        return section.closed_form_edges(stream, basis, next_basis, quadrature)
    return exact_edges(section, stream, basis, next_basis, quadrature)


def use_closed_form(section: Section, estimator: Estimator) -> bool:
    """Whether this section's closed form answers for this choice of estimator."""
    refuse_other("estimator", estimator, ESTIMATORS)
    if estimator == "closed_form" and not isinstance(section, ClosedForm):
        raise ValueError(f"{type(section).__name__} has no closed form; expected auto or exact")
    return estimator in ("auto", "closed_form") and isinstance(section, ClosedForm)
