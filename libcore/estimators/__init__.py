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
from libcore.estimators.stochastic import PROBES, Estimate, Probes, stochastic_edges, stochastic_jacobian_gram
from libcore.jacobian_factor import JacobianFactor
from libcore.names import refuse_other
from libcore.numerical_errors import finite_over
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
    """`M'` of METHOD.md eq. 4 in float64.

    Raises ValueError where a closed form is asked for and there is none, NumericalError where it is not finite.
    """

    def of(part: ActivationStream) -> Estimate:
        if estimator == "stochastic":
            return stochastic_jacobian_gram(section, part, next_basis, quadrature, probes)
        if use_closed_form(section, estimator):
            assert isinstance(section, ClosedForm)
            return Estimate(section.closed_form_jacobian_gram(part, next_basis, quadrature), 0.0)
        return Estimate(exact_jacobian_gram(section, part, next_basis, quadrature), 0.0)

    estimate = finite_over(stream, of, value_of, "the Jacobian to the next node layer")
    if estimator == "stochastic":
        on_error(estimate.relative_error)
    return estimate.value


def jacobian_factor(
    section: Section,
    stream: ActivationStream,
    next_basis: Basis,
    quadrature: Quadrature,
    estimator: Estimator = "auto",
) -> JacobianFactor | None:
    """`M'` of METHOD.md eq. 4 by its factors, where the section's closed form has few columns; None elsewhere.

    Raises NumericalError where they are not finite.
    """
    if not (use_closed_form(section, estimator) and isinstance(section, FactoredJacobian)):
        return None

    def of(part: ActivationStream) -> JacobianFactor | None:
        return section.jacobian_factor(part, next_basis, quadrature)

    def tensors_of(factor: JacobianFactor | None) -> tuple[Tensor, ...]:
        return () if factor is None else (factor.reads, factor.middle)

    return finite_over(stream, of, tensors_of, "the Jacobian to the next node layer")


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

    def of(part: ActivationStream) -> Estimate:
        if estimator == "stochastic":
            return stochastic_edges(section, part, basis, next_basis, quadrature, probes)
        if use_closed_form(section, estimator):
            assert isinstance(section, ClosedForm)
            return Estimate(section.closed_form_edges(part, basis, next_basis, quadrature), 0.0)
        return Estimate(exact_edges(section, part, basis, next_basis, quadrature), 0.0)

    estimate = finite_over(stream, of, value_of, "what the next features are attributed to")
    if estimator == "stochastic":
        on_error(estimate.relative_error)
    return estimate.value


def value_of(estimate: Estimate) -> tuple[Tensor, ...]:
    """What must be finite of it."""
    return (estimate.value,)


def use_closed_form(section: Section, estimator: Estimator) -> bool:
    """Whether this section's closed form answers for this choice of estimator."""
    refuse_other("estimator", estimator, ESTIMATORS)
    if estimator == "closed_form" and not isinstance(section, ClosedForm):
        raise ValueError(f"{type(section).__name__} has no closed form; expected auto or exact")
    return estimator in ("auto", "closed_form") and isinstance(section, ClosedForm)
