"""The Local Interaction Basis: the algorithm box of the paper (arXiv 2405.10928, METHOD.md 2).

for each node layer, last to first:
    W, D    = principal components of the activations                 eq. 1-2
    R       = W D^(-1/2)                       whitening               eq. 3
    M'      = E[ J^T J ], J the Jacobian to the next layer's features  eq. 4
    V, Λ    = eigenvectors and eigenvalues of Rpinv M' Rpinv^T         eq. 5
    C       = R V Λ^(1/2)                      the basis               eq. 6
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation, descending_eigh, largest_of
from libcore.estimators import jacobian_gram
from libcore.fit_settings import FitSettings, working_dtype
from libcore.layer_by_layer import last_basis
from libcore.methods import method
from libcore.principal_components import principal_components
from libcore.quadrature import GRADIENT
from libcore.statistics import LayerStatistics


def lib_basis(
    statistics: LayerStatistics,
    jacobian_gram: Float[Tensor, "d d"],
    truncation: Truncation,
    dtype: torch.dtype,
) -> Basis:
    """LIB of one node layer from its moments and the Jacobian Gram `M'` to the next layer's fitted basis.

    The layer carries the constant coordinate. `importance` lists `Λ_0` of the constant, then all whitened directions'
    `Λ`, descending; `to_basis` has those above the cut. Everything is float64; `dtype` is what the activations were
    computed in and sets the default cut.
    """
    components = principal_components(statistics, True, truncation, dtype)
    whiten, unwhiten = components.whitened()
    alignment = unwhiten @ jacobian_gram @ unwhiten.T  # M, eq. 5
    importance, rotation = descending_eigh(alignment[1:, 1:], components.isolated)
    kept = importance > truncation.cut(largest_of(importance), dtype)

    # The constant is a feature even where nothing depends on it; it then keeps its own scale.
    constant = alignment[:1, 0].clamp(min=0.0)
    scale = torch.cat([torch.where(constant > 0, constant, 1.0), importance[kept]]).sqrt()  # Λ^(1/2)
    align = rotation[:, kept]  # V
    to_basis = torch.cat([whiten[:, :1], whiten[:, 1:] @ align], dim=1) * scale
    from_basis = torch.cat([unwhiten[:1], align.T @ unwhiten[1:]]) / scale[:, None]
    return Basis(to_basis, from_basis, torch.cat([constant, importance]), has_constant=True)


def refuse_path_of_one_point(settings: FitSettings, *, jacobian: str = "point") -> None:
    """The rule `gradient` has no path to average along."""
    if jacobian == "path" and settings.quadrature == GRADIENT:
        raise ValueError(
            "method.jacobian=path with analysis.integration=gradient has no path; "
            "expected trapezoidal or gauss_legendre"
        )


def along_the_path(*, jacobian: str = "point") -> bool:
    """At the data point no integration rule matters."""
    return jacobian == "path"


@method("lib", label="LIB", sorts_by="Λ", place=0, check=refuse_path_of_one_point, integrates=along_the_path)
def fit_lib(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    jacobian: Literal["point", "path"] = "point",
) -> dict[str, Basis]:
    """The box: last node layer to first, since each layer's basis needs the next one's.

    Args:
        jacobian: at the data point (the paper), or averaged along the path from zero by the integration rule.
    """
    dtype = working_dtype(chain, inputs)
    quadrature = settings.quadrature if jacobian == "path" else GRADIENT
    bases = {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}
    streams = chain.streams(inputs, settings.memory_budget)
    for index, (layer, next_layer) in reversed(list(enumerate(pairwise(chain.node_layers)))):
        gram = jacobian_gram(
            chain.sections[index],
            streams[index],
            bases[next_layer].to(dtype=dtype),
            quadrature,
            settings.estimator,
            settings.probes.named(f"basis/{layer}"),
            partial(settings.on_error, layer),
        )
        bases[layer] = lib_basis(statistics[layer], gram, settings.truncation, dtype)
    return {layer: bases[layer] for layer in chain.node_layers}
