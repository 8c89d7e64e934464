"""The Local Interaction Basis: the algorithm box of the paper (arXiv 2405.10928, METHOD.md 2).

for each node layer, last to first:
    W, D    = principal components of the activations                 eq. 1-2
    R       = W D^(-1/2)                       whitening               eq. 3
    M'      = E[ J^T J ], J the Jacobian to the next layer's features  eq. 4
    V, Λ    = eigenvectors and eigenvalues of Rpinv M' Rpinv^T         eq. 5
    C       = R V Λ^(1/2)                      the basis               eq. 6

or, equal to eq. 3-6 where M' = B B^T with few columns B:

    w, Λ    = eigenvectors and eigenvalues of B^T G B                  eq. 6b
    C       = P B w, P the projection onto the range of G
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation, descending_eigh, largest_of, signs_of
from libcore.estimators import jacobian_factor, jacobian_gram
from libcore.fit_settings import FitSettings, working_dtype
from libcore.gram_range import projected_onto_range
from libcore.jacobian_factor import JacobianFactor
from libcore.layer_by_layer import last_basis
from libcore.methods import method
from libcore.principal_components import centred_maps, principal_components
from libcore.quadrature import GRADIENT, Quadrature
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
    align, scale = rotation[:, kept], importance[kept].sqrt()  # V, Λ^(1/2)
    return basis_about_the_mean(
        whiten[:-1, 1:] @ align * scale,
        align.T @ unwhiten[1:, :-1] / scale[:, None],
        statistics.mean,
        torch.cat([alignment[:1, 0].clamp(min=0.0), importance]),
    )


def lib_basis_of_few(
    statistics: LayerStatistics,
    factor: JacobianFactor,
    truncation: Truncation,
    dtype: torch.dtype,
) -> Basis:
    """`lib_basis` where the next layer reads few directions: neither whitening nor a wide eigenproblem (eq. 6b).

    The cut on variance is the range of `G`; `importance` lists the `Λ` of the directions that are read, since all
    others are zero.
    """
    gram, root = statistics.gram[:-1, :-1], factor.root()  # G, B
    read = root[:-1]
    gram_read = gram @ read
    importance, rotation = descending_eigh(read.T @ gram_read)
    kept = importance > truncation.cut(largest_of(importance), dtype)
    align = rotation[:, kept]  # w
    return basis_about_the_mean(
        projected_onto_range(read @ align, gram, statistics.count, truncation, dtype),
        (gram_read @ align).T / importance[kept][:, None],
        statistics.mean,
        torch.cat([(statistics.mean @ root).square().sum()[None], importance]),
    )


def basis_about_the_mean(
    directions: Float[Tensor, "n k"],
    back: Float[Tensor, "k n"],
    mean: Float[Tensor, " n_and_constant"],
    importance: Float[Tensor, " m"],
) -> Basis:
    """The features `(f - mu) @ directions`, each with a positive entry of largest magnitude, behind the constant.

    The constant is a feature even where nothing depends on it; it then keeps its own scale.
    """
    signs = signs_of(directions)
    to_basis, from_basis = centred_maps(directions * signs, back * signs[:, None], mean[:-1])
    scale = torch.where(importance[0] > 0, importance[0], 1.0).sqrt()  # Λ_0^(1/2)
    to_basis[:, 0] *= scale
    from_basis[0] /= scale
    return Basis(to_basis, from_basis, importance, has_constant=True)


def refuse_path_of_one_point(settings: FitSettings, *, jacobian: str) -> None:
    """The rule `gradient` has no path to average along."""
    if jacobian == "path" and settings.quadrature == GRADIENT:
        raise ValueError(
            "method.jacobian=path with analysis.integration=gradient has no path; "
            "expected trapezoidal or gauss_legendre"
        )


def along_the_path(*, jacobian: str = "point") -> bool:
    """At the data point no integration rule matters."""
    return jacobian == "path"


def lib_towards(
    last: Basis,
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    quadrature: Quadrature = GRADIENT,
) -> dict[str, Basis]:
    """The box, with this basis of the last node layer.

    Last node layer to first, since each layer's basis needs the next one's. Jacobians are averaged over the
    quadrature's points.
    """
    dtype = working_dtype(chain, inputs)
    bases = {chain.node_layers[-1]: last}
    streams = chain.streams(inputs, settings.memory_budget)
    for index, (layer, next_layer) in reversed(list(enumerate(pairwise(chain.node_layers)))):
        section, stream, next_basis = chain.sections[index], streams[index], bases[next_layer].to(dtype=dtype)
        few = None
        if not statistics[layer].isolated:
            few = jacobian_factor(section, stream, next_basis, quadrature, settings.estimator)
        if few is not None:
            bases[layer] = lib_basis_of_few(statistics[layer], few, settings.truncation, dtype)
            continue
        gram = jacobian_gram(section, stream, next_basis, quadrature, *settings.estimation(layer))
        bases[layer] = lib_basis(statistics[layer], gram, settings.truncation, dtype)
    return {layer: bases[layer] for layer in chain.node_layers}


@method("lib", label="LIB", sorts_by="Λ", place=0, check=refuse_path_of_one_point, integrates=along_the_path)
def fit_lib(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    jacobian: Literal["point", "path"] = "point",
) -> dict[str, Basis]:
    """The box, from logits as they are or the last residual stream's principal components.

    Args:
        jacobian: at the data point (the paper), or averaged along the path from zero by the integration rule.
    """
    last = last_basis(chain, statistics, settings, working_dtype(chain, inputs))
    return lib_towards(
        last, chain, inputs, statistics, settings, settings.quadrature if jacobian == "path" else GRADIENT
    )
