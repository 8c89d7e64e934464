"""Formulas of operations against what is counted, over a decade of sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from tiny_models import (
    affine,
    basis_of,
    convolution,
    keeping_constant,
    random,
    random_activation,
    residual_convolution,
    stream_of,
)
from torch import Generator
from torch.nn import functional

from libcore.constant import beside_constant
from libcore.estimators import edges, jacobian_factor, jacobian_gram
from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.estimators.operations import edge_operations, gram_operations
from libcore.quadrature import GRADIENT, Quadrature
from libcore.sections import (
    AttentionBranch,
    BlockSection,
    Branch,
    Elementwise,
    FunctionSection,
    Gated,
    HeadNormalisation,
    Linear,
    Normalisation,
    NormalisedAttention,
    NormalisedPositionwise,
    PositionwiseBranch,
    ResidualElementwiseSection,
    Rotary,
    Section,
)
from libcore.sections.operations import counted

TOLERANCE = 0.3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations of other threads are not counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Size:
    """Of a model and its data."""

    width: int = 32
    positions: int = 24
    features: int = 10
    examples: int = 1


DECADE = [
    Size(),
    *(Size(width=width) for width in (10, 100)),
    *(Size(positions=positions) for positions in (5, 50)),
    Size(features=100),
    Size(examples=10),
]


def drawn() -> Generator:
    return Generator().manual_seed(0)


def attention(
    size: Size, key_value_heads: int = 4, normalisation: bool = True, biases: bool = True, **settings
) -> AttentionBranch:
    """Four heads, a half as wide as the residual stream in all."""
    g, d_in, d_head = drawn(), size.width + 1, max(2, size.width // 8)
    weights = [random(g, heads, d_in, d_head) for heads in (4, key_value_heads, key_value_heads)]
    for weight in weights:
        weight[:, -1] *= float(biases)
    return AttentionBranch(
        *weights,
        beside_constant(random(g, 4, d_head, size.width)),
        Normalisation(size.width, True, 1e-2) if normalisation else None,
        rotary=Rotary(torch.linspace(0.1, 1, d_head // 2)) if settings.pop("rotary", False) else None,
        **settings,
    )


def normalised_heads(size: Size, together: bool = False, **settings) -> AttentionBranch:
    """On two key-value heads, turned."""
    d_head = max(2, size.width // 8)
    gains = [torch.ones(heads, d_head, dtype=torch.float64) for heads in (4, 2)]
    queries, keys = (HeadNormalisation(gain, torch.zeros_like(gain), False, together, 1e-2) for gain in gains)
    return attention(size, 2, biases=False, rotary=True, queries=queries, keys=keys, **settings)


def normalised_attention(size: Size, branch: AttentionBranch) -> Branch:
    g, n = drawn(), Normalisation(size.width, False, 1e-2)
    return NormalisedAttention(branch, 0 * random(g, size.width), n, random(g, size.width), size.width + 1)


def mlp(size: Size, hidden: Elementwise | Gated, normalisation: bool = True, biases: bool = True) -> PositionwiseBranch:
    """Four times as wide as the residual stream."""
    g, d_in = drawn(), size.width + 1
    weight_in = random(g, d_in, 4 * size.width * hidden.pre_activations_per_hidden)
    weight_in[-1] *= float(biases)
    n = Normalisation(size.width, False, 1e-2) if normalisation else None
    return PositionwiseBranch(weight_in, beside_constant(random(g, 4 * size.width, size.width)), hidden, n)


def normalised_output(size: Size) -> Branch:
    g, n = drawn(), Normalisation(size.width, False, 1e-2)
    branch = mlp(size, SILU, biases=False)
    return NormalisedPositionwise(branch, 0 * random(g, size.width), n, random(g, size.width), size.width + 1)


def block(size: Size, *branches: Branch) -> BlockSection:
    return BlockSection(keeping_constant(random(drawn(), size.width + 1, size.width + 1)), branches)


def unembedding(size: Size) -> BlockSection:
    """To twice as many logits as the residual stream is wide."""
    g, d = drawn(), size.width
    linear = PositionwiseBranch(random(g, d + 1, d), random(g, d, 2 * d), Linear(), Normalisation(d, True, 1e-2))
    return BlockSection(torch.zeros(d + 1, 2 * d, dtype=torch.float64), (linear,))


def own_mlp(size: Size, hidden: int) -> ResidualElementwiseSection:
    g, d_in = drawn(), size.width + 1
    weight_in = random(g, d_in, hidden) / 10 / d_in  # so small that every neuron has a derivative
    weights = (keeping_constant(random(g, d_in, d_in)), weight_in, random(g, hidden, d_in))
    return ResidualElementwiseSection(*weights, functional.gelu)


def read_alone(section: ResidualElementwiseSection) -> ResidualElementwiseSection:
    """Without a residual stream."""
    residual = torch.zeros_like(section.residual)
    residual[-1, -1] = 1.0
    return ResidualElementwiseSection(residual, section.weight_in, section.weight_out, section.activation_function)


GELU, SILU = Elementwise(functional.gelu), Gated(functional.silu)
SECTIONS: dict[str, Callable[[Size], Section]] = {
    "MLP": lambda s: block(s, mlp(s, GELU)),
    "MLP without a normalisation": lambda s: block(s, mlp(s, GELU, normalisation=False)),
    "gated MLP": lambda s: block(s, mlp(s, SILU, biases=False)),
    "gated MLP, its output normalised": lambda s: block(s, normalised_output(s)),
    "MLP of its own": lambda s: own_mlp(s, 4 * s.width),
    "MLP of its own, few neurons beside a constant": lambda s: read_alone(own_mlp(s, s.width // 4)),
    "attention": lambda s: block(s, attention(s)),
    "attention without a normalisation": lambda s: block(s, attention(s, normalisation=False)),
    "attention, rotary": lambda s: block(s, attention(s, rotary=True, biases=False)),
    "attention, rotary, grouped": lambda s: block(s, attention(s, 2, rotary=True)),
    "attention, both ways": lambda s: block(s, attention(s, causal=False)),
    "attention, normalised heads": lambda s: block(s, normalised_heads(s)),
    "attention, heads normalised together": lambda s: block(s, normalised_heads(s, together=True)),
    "attention, soft cap": lambda s: block(s, attention(s, 2, rotary=True, soft_cap=1.0)),
    "attention, its output normalised": lambda s: block(s, normalised_attention(s, attention(s, 2, rotary=True))),
    "attention, heads and output normalised": lambda s: block(s, normalised_attention(s, normalised_heads(s))),
    "parallel": lambda s: block(s, attention(s), mlp(s, GELU)),
    "unembedding": unembedding,
    "affine": lambda s: affine(drawn(), s.width + 1, 2 * s.width),
}
PATH = Quadrature.of("trapezoidal", 2)


def case(name: str, size: Size):
    """A section, activations it reads, and bases of either side."""
    section = SECTIONS[name](size)
    activation = random_activation(drawn(), size.examples, size.positions, size.width + 1)
    with torch.no_grad():
        d_out = section(activation[:1]).shape[-1]
    return (
        section,
        activation,
        basis_of(random(drawn(), size.width + 1, size.width)),
        basis_of(random(drawn(), d_out, size.features)),
    )


def test_the_counter() -> None:
    """PyTorch's own, and what that leaves out."""
    from torch.utils.flop_counter import FlopCounterMode

    g = drawn()
    matrix, batch, image, kernel = random(g, 5, 5), random(g, 2, 5, 5), random(g, 1, 2, 6, 6), random(g, 3, 2, 3, 3)

    def compute() -> None:
        torch.addmm(matrix, matrix, matrix @ matrix)
        torch.baddbmm(batch, batch, batch @ matrix)
        functional.conv2d(image, kernel, stride=2, padding=1)

    with FlopCounterMode(display=False) as counter:
        compute()
    assert counted(compute) == counter.get_total_flops() > 0
    assert counted(lambda: matrix.clone().addmm_(matrix, matrix)) == counted(lambda: matrix @ matrix) == 250
    heads = random(g, 1, 2, 6, 4)
    assert counted(lambda: functional.scaled_dot_product_attention(heads, heads, heads)) == 2 * 2 * 6 * 6 * (4 + 4)


@pytest.mark.parametrize("size", DECADE, ids=str)
@pytest.mark.parametrize("name", SECTIONS)
def test_forward_passes(name: str, size: Size) -> None:
    section, activation, *_ = case(name, size)
    with torch.no_grad():
        found = counted(lambda: section(activation))
    assert size.examples * section.forward_operations(activation[:1]) == pytest.approx(found, rel=TOLERANCE)


@pytest.mark.parametrize(("size", "quadrature"), [*((size, GRADIENT) for size in DECADE), (Size(), PATH)], ids=str)
@pytest.mark.parametrize("name", SECTIONS)
def test_jacobian_grams(name: str, size: Size, quadrature: Quadrature) -> None:
    section, activation, _, next_basis = case(name, size)
    arguments = (section, stream_of(activation, 2**40), next_basis, quadrature)
    found = counted(lambda: jacobian_factor(*arguments) or jacobian_gram(*arguments, "closed_form"))
    formula = gram_operations(section, activation[:1], next_basis.n_features, len(quadrature.points))
    assert formula.of(size.examples) == pytest.approx(found, rel=TOLERANCE)


@pytest.mark.parametrize(("size", "quadrature"), [*((size, GRADIENT) for size in DECADE), (Size(), PATH)], ids=str)
@pytest.mark.parametrize("name", SECTIONS)
def test_edges(name: str, size: Size, quadrature: Quadrature) -> None:
    section, activation, basis, next_basis = case(name, size)
    budget = 2**24
    found = counted(lambda: section.closed_form_edges(stream_of(activation, budget), basis, next_basis, quadrature))
    features = (basis.n_features, next_basis.n_features)
    formula = edge_operations(section, activation[:1], *features, len(quadrature.points), size.examples, budget)
    assert formula.of(size.examples) == pytest.approx(found, rel=TOLERANCE)


IMAGES = [(4, 6, 5), (16, 6, 5), (4, 24, 5), (4, 6, 20)]
"""Channels of the image, hidden ones, and features."""


@pytest.mark.parametrize(("channels", "hidden", "features"), IMAGES)
@pytest.mark.parametrize("n_examples", [3, 30])
@pytest.mark.parametrize("residual", [False, True])
def test_convolutions(residual: bool, n_examples: int, channels: int, hidden: int, features: int) -> None:
    grid = (6, 6)
    section = convolution(drawn(), channels, hidden, grid, 3, 1, 1)
    if residual:
        windows = ((3, 1, 1), (3, 1, 1), (1, 1, 0))
        section = residual_convolution(drawn(), (channels, hidden, hidden), grid, windows, functional.gelu)
    activation = random_activation(drawn(), n_examples, 36, channels)
    basis, next_basis = basis_of(random(drawn(), channels, channels)), basis_of(random(drawn(), hidden, features))
    stream, shapes = stream_of(activation, 2**30), (basis.n_features, next_basis.n_features)
    with torch.no_grad():
        found = counted(lambda: section(activation))
    assert n_examples * section.forward_operations(activation[:1]) == pytest.approx(found, rel=TOLERANCE)
    found = counted(lambda: jacobian_gram(section, stream, next_basis, GRADIENT, "closed_form"))
    formula = gram_operations(section, activation[:1], features)
    assert formula.of(n_examples) == pytest.approx(found, rel=TOLERANCE)
    found = counted(lambda: edges(section, stream, basis, next_basis, GRADIENT, "closed_form"))
    formula = edge_operations(section, activation[:1], *shapes, 1, n_examples, 2**30)
    assert formula.of(n_examples) == pytest.approx(found, rel=TOLERANCE)


SMALL = [Size(10, 6, 11, 3), Size(40, 6, 11, 3), Size(10, 6, 40, 12)]


@pytest.mark.parametrize("size", SMALL, ids=str)
@pytest.mark.parametrize("name", ["MLP", "attention, rotary, grouped"])
def test_sections_that_are_differentiated(name: str, size: Size) -> None:
    inner, activation, basis, next_basis = case(name, size)
    section, stream = FunctionSection(inner), stream_of(activation, 2**30)
    features = (basis.n_features, next_basis.n_features)
    found = counted(lambda: exact_jacobian_gram(section, stream, next_basis, GRADIENT))
    formula = gram_operations(section, activation[:1], next_basis.n_features)
    assert formula.of(size.examples) == pytest.approx(found, rel=TOLERANCE)
    found = counted(lambda: exact_edges(section, stream, basis, next_basis, GRADIENT))
    formula = edge_operations(section, activation[:1], *features, 1, size.examples, 2**30)
    assert formula.of(size.examples) == pytest.approx(found, rel=TOLERANCE)
