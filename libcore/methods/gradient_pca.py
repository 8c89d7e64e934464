"""The gradient baseline (active subspaces): principal directions of the loss's gradients, not of the activations."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis, identity_basis
from libcore.chain import Chain
from libcore.estimators import jacobian_gram
from libcore.fit_settings import FitSettings, working_dtype
from libcore.layer_by_layer import eigenbasis, last_basis
from libcore.methods import method, never
from libcore.quadrature import GRADIENT
from libcore.sections import FunctionSection, Section, compose
from libcore.statistics import LayerStatistics


@method("gradient_pca", label="gradient PCA", sorts_by="mean squared gradient", place=6, integrates=never)
def fit_gradient_pca(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """Eigenvectors of `E[g^T g]`, `g` the gradient of the cross-entropy by the activation, centred.

    The expectation is over inputs and over labels as the model itself predicts them, which is exact and needs no
    labels: with `p` its probabilities, `E_y[g^T g] = J^T (diag(p) - p^T p) J` (the Fisher information). The last node
    layer keeps its own basis.
    """
    dtype = working_dtype(chain, inputs)
    bases: dict[str, Basis] = {}
    for index, (layer, stream) in enumerate(
        zip(chain.node_layers, chain.streams(inputs, settings.memory_budget), strict=False)
    ):
        to_loss = FunctionSection(partial(surprise, compose(chain.sections_from(index))))
        of_output = stream.example().new_ones(to_loss(stream.example()).shape[-1])
        neurons = identity_basis(of_output, has_constant=False)
        gram = jacobian_gram(to_loss, stream, neurons, GRADIENT, *settings.estimation(layer))
        bases[layer] = eigenbasis(gram, statistics[layer], settings.truncation, dtype)
    return bases | {chain.node_layers[-1]: last_basis(chain, statistics, settings, dtype)}


def surprise(
    to_output: Section, activation: Float[Tensor, "batch position d"]
) -> Float[Tensor, "batch position_out n_outputs"]:
    """Numbers whose derivatives are `sqrt(p_y)` times those of the cross-entropy to label `y`, for every label."""
    logits = to_output(activation)
    p = logits.detach().softmax(-1)
    return (logits - (p * logits).sum(-1, keepdim=True)) * p.sqrt()
