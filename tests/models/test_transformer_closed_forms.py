"""Every section of a decoder, coarse or fine: its closed forms equal differentiation, positions included."""

from __future__ import annotations

import pytest
import torch
from test_transformer_chain import ALL, ARCHITECTURES, CPU, random_weights, tokens_of

from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.methods import METHODS, FitSettings
from libcore.quadrature import GRADIENT
from libcore.sections import ClosedForm
from libcore.statistics import chain_statistics
from models.transformer.chain import chain_of
from models.transformer.node_layers import all_node_layers, default_node_layers

BUDGET = 2**26
WITHOUT_THEM = {("capped logits", default_node_layers)}
"""Whose chain does not reach what has no closed form."""


@pytest.mark.parametrize("layers_of", [default_node_layers, all_node_layers])
@pytest.mark.parametrize("name", ALL)
def test_closed_forms_are_exact(generator: torch.Generator, name: str, layers_of) -> None:
    architecture = ALL[name]
    weights, tokens = random_weights(architecture, generator), tokens_of(architecture, generator)
    chain = chain_of(architecture, weights, torch.float64, CPU, layers_of(architecture))
    bases = METHODS["lib"](chain, tokens, chain_statistics(chain, tokens, BUDGET), FitSettings(memory_budget=BUDGET))
    differentiated = []
    for index, section in enumerate(chain.sections):
        layer, next_layer = chain.node_layers[index : index + 2]
        if not isinstance(section, ClosedForm):
            differentiated.append(layer)
            continue
        stream, basis, following = chain.stream(tokens, index, BUDGET), bases[layer], bases[next_layer]
        gram = section.closed_form_jacobian_gram(stream, following, GRADIENT)
        exact = exact_jacobian_gram(section, stream, following, GRADIENT)
        assert (gram - exact).abs().max() < 1e-8 * exact.abs().max(), layer
        arguments = (stream, basis, following, GRADIENT)
        edges, exact = section.closed_form_edges(*arguments), exact_edges(section, *arguments)
        assert (edges - exact).abs().max() < 1e-8 * exact.abs().max(), layer
    assert bool(differentiated) == (name not in ARCHITECTURES and (name, layers_of) not in WITHOUT_THEM)
