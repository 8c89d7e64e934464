"""What a node layer's coordinates are is no property of the model: LIB does not see invertible maps of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    AMPLE,
    affine,
    attention,
    largest_difference,
    random,
    random_activation,
    random_orthogonal,
    residual_elementwise,
)
from torch import Generator, Tensor
from torch.nn import functional

from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.graph import interaction_edges
from libcore.methods import FitSettings
from libcore.methods.lib import fit_lib
from libcore.methods.pca import fit_pca
from libcore.quadrature import Quadrature
from libcore.sections import AffineSection, AttentionSection, FunctionSection, ResidualElementwiseSection, Section
from libcore.statistics import chain_statistics

D = 4
Rewrite = Callable[[Section, Tensor], Section]
Fitted = dict[str, tuple[Tensor, Tensor | None]]


def followed_by(section: Section, matrix: Tensor) -> Section:
    """`f -> section(f) @ matrix` as a section of the same kind, its closed forms kept."""
    if isinstance(section, AffineSection):
        return AffineSection(section.weight @ matrix)
    if isinstance(section, ResidualElementwiseSection):
        return ResidualElementwiseSection(
            section.residual @ matrix, section.weight_in, section.weight_out @ matrix, section.activation_function
        )
    assert isinstance(section, AttentionSection)
    return AttentionSection(
        section.residual @ matrix,
        section.attention.W_Q,
        section.attention.W_K,
        section.attention.W_V,
        section.attention.W_O @ matrix,
        section.query_positions,
        section.attention.causal,
    )


def preceded_by(section: Section, matrix: Tensor) -> Section:
    """`f -> section(f @ matrix)` as a section of the same kind."""
    if isinstance(section, AffineSection):
        return AffineSection(matrix @ section.weight)
    if isinstance(section, ResidualElementwiseSection):
        return ResidualElementwiseSection(
            matrix @ section.residual, matrix @ section.weight_in, section.weight_out, section.activation_function
        )
    assert isinstance(section, AttentionSection)
    return AttentionSection(
        matrix @ section.residual,
        matrix @ section.attention.W_Q,
        matrix @ section.attention.W_K,
        matrix @ section.attention.W_V,
        section.attention.W_O,
        section.query_positions,
        section.attention.causal,
    )


def function_followed_by(section: Section, matrix: Tensor) -> Section:
    return FunctionSection(lambda f: section(f) @ matrix)


def function_preceded_by(section: Section, matrix: Tensor) -> Section:
    return FunctionSection(lambda f: section(f @ matrix))


def mapped(chain: Chain, layer: int, matrix: Tensor, follow: Rewrite, precede: Rewrite) -> Chain:
    """The same model with node layer `layer` written as `f @ matrix`."""
    sections, head = list(chain.sections), chain.embed
    if layer:
        sections[layer - 1] = follow(sections[layer - 1], matrix)
    else:

        def head(inputs: Tensor) -> Tensor:
            return chain.embed(inputs) @ matrix

    if layer < len(sections):
        sections[layer] = precede(sections[layer], torch.linalg.inv(matrix))
    return replace(chain, sections=tuple(sections), embed=head)


def with_constant(matrix: Tensor, shift: Tensor | None = None) -> Tensor:
    """The map of the variable coordinates, shifted through the constant one, which stays as it is."""
    whole = torch.eye(D, dtype=torch.float64)
    whole[:-1, :-1] = matrix
    if shift is not None:
        whole[-1, :-1] = shift
    return whole


@cache
def chain_and_inputs(last_is_residual_stream: bool) -> tuple[Chain, Tensor]:
    generator = Generator().manual_seed(0)
    sections = (
        attention(generator, D, D, query_positions=(0, -1)),
        residual_elementwise(generator, D, 6, D, functional.relu),
        residual_elementwise(generator, D, 6, D, functional.gelu),
        affine(generator, D, D if last_is_residual_stream else 6, constant_out=last_is_residual_stream),
    )
    names = ("first", "second", "third", "fourth", "stream" if last_is_residual_stream else "output")
    chain = Chain(names, sections, embed=lambda inputs: inputs, last_has_constant=last_is_residual_stream)
    return chain, random_activation(generator, 10, 3, D)


def fitted(chain: Chain, inputs: Tensor, method: Callable = fit_lib) -> Fitted:
    """Importances and edges by layer."""
    statistics = chain_statistics(chain, inputs, AMPLE)
    bases = method(chain, inputs, statistics, FitSettings(Truncation("relative", 1e-12)))
    strengths = interaction_edges(chain, inputs, bases, Quadrature.of("trapezoidal", 2))
    return {layer: (bases[layer].importance, strengths.get(layer)) for layer in chain.node_layers}


@cache
def fitted_once(last_is_residual_stream: bool) -> Fitted:
    return fitted(*chain_and_inputs(last_is_residual_stream))


def assert_same(result: Fitted, expected: Fitted) -> None:
    for layer, (importance, edges) in expected.items():
        assert largest_difference(result[layer][0], importance) < 1e-8, layer
        if edges is not None:
            found = result[layer][1]
            assert found is not None
            assert largest_difference(found, edges) < 1e-8, layer


@pytest.mark.parametrize("method", [fit_lib, fit_pca])
@pytest.mark.parametrize(
    ("follow", "precede"), [(followed_by, preceded_by), (function_followed_by, function_preceded_by)]
)
@pytest.mark.parametrize("layer", range(4))
def test_rotating_a_node_layer_changes_nothing(
    generator: Generator, layer: int, follow: Rewrite, precede: Rewrite, method: Callable
) -> None:
    chain, inputs = chain_and_inputs(False)
    rotation = with_constant(random_orthogonal(generator, D - 1))
    rotated = mapped(chain, layer, rotation, follow, precede)
    assert largest_difference(rotated.activation(inputs, 4), chain.activation(inputs, 4)) < 1e-12
    assert_same(fitted(rotated, inputs, method), fitted(chain, inputs, method))


@pytest.mark.parametrize("layer", range(5))
def test_rotating_a_chain_that_ends_in_a_residual_stream_changes_nothing(generator: Generator, layer: int) -> None:
    chain, inputs = chain_and_inputs(True)
    rotation = with_constant(random_orthogonal(generator, D - 1))
    assert_same(fitted(mapped(chain, layer, rotation, followed_by, preceded_by), inputs), fitted_once(True))


@settings(max_examples=25)
@given(
    layer=st.integers(0, 3),
    seed=st.integers(0, 10_000),
    scales=st.tuples(*[st.floats(0.2, 5.0)] * (D - 1)),
    shift=st.floats(-2.0, 2.0),
)
def test_lib_does_not_see_invertible_maps_of_a_node_layer(
    layer: int, seed: int, scales: tuple[float, ...], shift: float
) -> None:
    generator = Generator().manual_seed(seed)
    scaling = torch.diag(torch.tensor(scales, dtype=torch.float64))
    matrix = random_orthogonal(generator, D - 1) @ scaling @ random_orthogonal(generator, D - 1)
    chain, inputs = chain_and_inputs(False)
    invertible = with_constant(matrix, shift * random(generator, D - 1))
    assert_same(fitted(mapped(chain, layer, invertible, followed_by, preceded_by), inputs), fitted_once(False))


def test_pca_does_see_a_scaling(generator: Generator) -> None:
    chain, inputs = chain_and_inputs(False)
    scaling = with_constant(torch.diag(torch.tensor([1.0, 3.0, 0.3], dtype=torch.float64)))
    scaled = fitted(mapped(chain, 1, scaling, followed_by, preceded_by), inputs, fit_pca)
    assert largest_difference(scaled["second"][0], fitted(chain, inputs, fit_pca)["second"][0]) > 0.1
