"""Integration rules for the path from the zero activation to the data point (METHOD.md 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from libcore.names import nearest

IntegrationRule = Literal["gradient", "trapezoidal", "gauss_legendre"]
INTEGRATION_RULES: tuple[str, ...] = get_args(IntegrationRule)


@dataclass(frozen=True)
class Quadrature:
    """Points `alpha` in [0, 1] and weights that sum to one: `∫ g(α) dα ≈ sum_q weight_q g(alpha_q)`."""

    points: tuple[float, ...]
    weights: tuple[float, ...]

    def __iter__(self):
        return iter(zip(self.points, self.weights, strict=True))

    @classmethod
    def of(cls, rule: str, n_points: int) -> Quadrature:
        """The rule by name.

        `gradient` is the single point α = 1 (what the paper's modular-addition runs use) and ignores `n_points`;
        `trapezoidal` has `n_points` intervals, hence one evaluation more; `gauss_legendre` has `n_points` points.

        Raises ValueError for another name or for `n_points < 1`.
        """
        if n_points < 1:
            raise ValueError(f"n_points={n_points}: an integration rule needs at least one point")
        if rule == "gradient":
            return GRADIENT
        if rule == "trapezoidal":
            inner = np.full(n_points + 1, 1.0 / n_points)
            inner[[0, -1]] /= 2
            return cls(tuple(np.linspace(0.0, 1.0, n_points + 1).tolist()), tuple(inner.tolist()))
        if rule == "gauss_legendre":
            roots, weights = np.polynomial.legendre.leggauss(n_points)
            return cls(tuple(((roots + 1) / 2).tolist()), tuple((weights / 2).tolist()))
        hint = nearest(rule, INTEGRATION_RULES)
        raise ValueError(f"integration rule {rule!r}{hint}: expected one of {', '.join(INTEGRATION_RULES)}")


GRADIENT = Quadrature(points=(1.0,), weights=(1.0,))
