"""A node layer's basis with some of its features mixed."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor

from libcore.basis import Basis, in_order
from libcore.gauge.mixing import Mixing
from libcore.statistics import LayerStatistics


def mixed_bases(
    bases: Mapping[str, Basis],
    statistics: Mapping[str, LayerStatistics],
    columns: Mapping[str, Int[Tensor, " leading"]],
    mixings: Mapping[str, Mixing],
) -> dict[str, Basis]:
    """Of all node layers; those without a mixing as they are."""
    return dict(bases) | {
        layer: mixed_basis(bases[layer], statistics[layer], columns[layer], mixing) for layer, mixing in mixings.items()
    }


def mixed_basis(basis: Basis, statistics: LayerStatistics, columns: Int[Tensor, " leading"], mixing: Mixing) -> Basis:
    """The features `columns` mixed, the others as they are, all sorted by importance, the constant first.

    Importance is the variance of a feature times its entry of the Jacobian Gram, which is 1 for features of LIB and of
    mixings whose inverse has rows of norm 1. Each direction's entry of largest magnitude is positive.
    """
    to_basis, from_basis, importance = basis.to_basis.clone(), basis.from_basis.clone(), basis.importance.clone()
    to_basis[:, columns] = basis.to_basis[:, columns] @ mixing.forward
    from_basis[columns] = mixing.backward @ basis.from_basis[columns]
    importance[columns] = variances(to_basis[:, columns], statistics, basis.has_constant)
    order = importance[basis.variable.start : basis.n_features].argsort(descending=True, stable=True)
    return in_order(Basis(to_basis, from_basis, importance, basis.has_constant), order)


def variances(directions: Float[Tensor, "d k"], statistics: LayerStatistics, has_constant: bool) -> Float[Tensor, " k"]:
    """Of features, from the moments of their node layer."""
    gram = statistics.gram.clone()
    if has_constant:  # the constant coordinate does not vary, though its entry of the Gram is 1
        gram[-1, -1] = 0.0
    return (directions * (gram @ directions)).sum(0).clamp(min=0.0)
