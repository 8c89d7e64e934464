"""Convolutional sections: forward pass, Jacobian Grams, edges and masked evaluation, image borders included."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from section_cases import RULES
from tiny_models import (
    AMPLE,
    basis_of,
    convolution,
    largest_difference,
    random,
    random_activation,
    residual_convolution,
    stream_of,
)
from torch.nn import functional

from libcore.basis import Basis
from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.sections import ConvolutionSection, MaxPoolingSection, ResidualConvolutionSection
from libcore.sections.convolution.kernel_overlap import Window, overlaps, pixel_classes
from libcore.sections.masked import evaluate_mask_by_mask

D_IN, D_HIDDEN, D_OUT = 3, 4, 5
POINTWISE = (1, 1, 0)
BLOCKS = {
    "two_convolutions": ((4, 5), (3, 1, 1), (3, 1, 1), POINTWISE),
    "two_convolutions_beside_a_third": ((4, 5), (3, 1, 1), (3, 1, 1), (3, 1, 1)),
    "average_pooling": ((4, 6), (3, 1, 1), (2, 2, 0), (2, 2, 0)),
    "pooling_that_leaves_a_row": ((5, 5), (3, 1, 1), (2, 2, 0), (2, 2, 0)),
    "channels_only_after": ((4, 3), (3, 1, 1), POINTWISE, POINTWISE),
    "stride": ((7, 5), (3, 2, 1), POINTWISE, (1, 2, 0)),
    "stride_then_convolution": ((7, 9), (3, 2, 1), (3, 1, 1), (1, 2, 0)),
    "convolution_then_stride": ((6, 7), (3, 1, 1), (3, 2, 1), (1, 2, 0)),
    "stride_twice": ((9, 8), (3, 2, 1), (3, 2, 1), (1, 4, 0)),
    "large_kernels": ((6, 7), (5, 1, 2), (5, 1, 2), (3, 1, 1)),
    "kernels_wider_than_the_image": ((2, 3), (5, 1, 2), (5, 1, 2), POINTWISE),
    "no_padding": ((6, 6), (3, 1, 0), (3, 1, 0), (5, 1, 0)),
    "pointwise": ((3, 4), POINTWISE, POINTWISE, POINTWISE),
    "mean_over_all_pixels": ((3, 3), POINTWISE, (3, 1, 0), (3, 1, 0)),
}
"""Grid, and size, stride, padding of the first, the second and the residual convolution."""


def generator_of(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, name)))


def block(name: str, activation_function=functional.gelu) -> ResidualConvolutionSection:
    grid, *windows = BLOCKS[name]
    widths = (D_IN, D_HIDDEN, D_OUT)
    return residual_convolution(generator_of(name), widths, grid, tuple(windows), activation_function)


def bases(generator: torch.Generator) -> tuple[Basis, Basis]:
    to_basis = random(generator, D_IN, D_IN)
    return basis_of(to_basis, torch.linalg.inv(to_basis)), basis_of(random(generator, D_OUT, 4))


def activation_of(section, generator: torch.Generator, n: int = 3) -> torch.Tensor:
    grid = section.first.grid if isinstance(section, ResidualConvolutionSection) else section.grid
    return random_activation(generator, n, grid[0] * grid[1], D_IN)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_convolution_is_the_sum_over_its_window(stride, padding):
    generator = torch.Generator().manual_seed(0)
    section = convolution(generator, D_IN, D_OUT, (5, 6), 3, stride, padding)
    activation = activation_of(section, generator)
    pixels, output = activation.unflatten(1, (5, 6)), section(activation).unflatten(1, section.grid_out)
    for row, column in product(*map(range, section.grid_out)):
        expected = torch.zeros(3, D_OUT, dtype=torch.float64)
        for i, j in product(range(3), range(3)):
            r, c = stride * row + i - padding, stride * column + j - padding
            if 0 <= r < 5 and 0 <= c < 6:
                expected += pixels[:, r, c] @ section.kernel[i, j]
        torch.testing.assert_close(output[:, row, column], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (2, 0)])
@pytest.mark.parametrize("rule", RULES)
def test_affine_convolution_equals_differentiation(rule, stride, padding):
    generator = torch.Generator().manual_seed(1)
    section = convolution(generator, D_IN, D_OUT, (5, 4), 3, stride, padding)
    stream = stream_of(activation_of(section, generator))
    basis, next_basis = bases(generator)
    quadrature, _ = RULES[rule]
    gram = section.closed_form_jacobian_gram(stream, next_basis, quadrature)
    assert largest_difference(gram, exact_jacobian_gram(section, stream, next_basis, quadrature)) < 1e-12
    arguments = (stream, basis, next_basis, quadrature)
    assert largest_difference(section.closed_form_edges(*arguments), exact_edges(section, *arguments)) < 1e-12


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("rule", RULES)
def test_block_equals_differentiation(name, rule):
    generator, section = generator_of(name), block(name)
    stream = stream_of(activation_of(section, generator))
    basis, next_basis = bases(generator)
    quadrature, _ = RULES[rule]
    gram = section.closed_form_jacobian_gram(stream, next_basis, quadrature)
    assert largest_difference(gram, exact_jacobian_gram(section, stream, next_basis, quadrature)) < 1e-10
    arguments = (stream, basis, next_basis, quadrature)
    assert largest_difference(section.closed_form_edges(*arguments), exact_edges(section, *arguments)) < 1e-10


@pytest.mark.parametrize("name", ["two_convolutions", "average_pooling", "mean_over_all_pixels"])
def test_chunks_do_not_matter(name):
    generator, section = generator_of(name), block(name, functional.relu)
    activation = activation_of(section, generator, n=7)
    basis, next_basis = bases(generator)
    quadrature, _ = RULES["gradient"]
    results = []
    for budget in (1, 100_000, AMPLE):
        stream = stream_of(activation, budget)
        gram = section.closed_form_jacobian_gram(stream, next_basis, quadrature)
        edges = section.closed_form_edges(stream, basis, next_basis, quadrature)
        results.append((gram, edges))
    for gram, edges in results[:-1]:
        assert largest_difference(gram, results[-1][0]) < 1e-13
        assert largest_difference(edges, results[-1][1]) < 1e-13


@pytest.mark.parametrize("name", [*BLOCKS, "affine"])
@pytest.mark.parametrize("budget", [1, AMPLE])
def test_masked_evaluation_equals_a_pass_per_mask(name, budget):
    generator = generator_of(name)
    section = convolution(generator, D_IN, D_OUT, (4, 5), 3, 2, 1) if name == "affine" else block(name, functional.relu)
    activation = activation_of(section, generator)
    basis, next_basis = bases(generator)
    features = basis.features(activation)
    evaluate = section.masked_evaluation(features, basis, next_basis, budget)
    slow = evaluate_mask_by_mask(section, features, basis, next_basis, AMPLE)
    masks = [torch.rand(4, D_IN, generator=generator) < share for share in (0.3, 0.7)]
    for mask in (*masks, torch.ones(4, D_IN, dtype=torch.bool), torch.zeros(4, D_IN, dtype=torch.bool)):
        torch.testing.assert_close(evaluate(mask), slow(mask), rtol=1e-12, atol=1e-12)
        some = torch.tensor([2, 0])
        torch.testing.assert_close(evaluate(mask[some], some), slow(mask)[..., some], rtol=1e-12, atol=1e-12)


def test_contributions_of_the_inputs_add_up_to_the_output():
    generator = torch.Generator().manual_seed(2)
    section = convolution(generator, D_IN, D_OUT, (4, 5), 3, 2, 1)
    activation = activation_of(section, generator)
    torch.testing.assert_close(section.contributions(activation).sum(0), section(activation), rtol=1e-12, atol=1e-12)


def test_max_pooling_takes_the_largest_of_every_window():
    activation = torch.arange(16.0, dtype=torch.float64)[None, :, None].expand(-1, -1, 2) * torch.tensor([1.0, -1.0])
    pooled = MaxPoolingSection((4, 4), 2)(activation.double())
    assert pooled[0, :, 0].tolist() == [5, 7, 13, 15]
    assert pooled[0, :, 1].tolist() == [0, -2, -8, -10]


def test_pixel_classes_cover_every_pixel_once():
    classes = pixel_classes(Window(3, 1, 1, 9), Window(2, 2, 0, 9))
    assert sorted(pixel for members in classes for pixel in members.pixels) == list(range(9))
    # The last pixel is read by no window of two: nothing comes through it.
    assert [members.second for members in classes if 8 in members.pixels] == [()]


def test_overlaps_pair_pixels_that_share_an_input_and_an_output():
    first, second = Window(3, 1, 1, 5), Window(3, 1, 1, 5)
    found = {
        (pixel, pixel + overlap.displacement, o, a)
        for overlap in overlaps(first, second)
        for pixel, o, a in product(overlap.pixels, overlap.first, overlap.second)
    }
    expected = {
        (m, n, (s - m + 1, s - n + 1), (m - t + 1, n - t + 1))
        for m, n, s, t in product(range(5), repeat=4)
        if all(abs(difference) <= 1 for difference in (s - m, s - n, m - t, n - t))
    }
    assert found == expected


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"window of \(5, 5\) pixels on a grid of \(3, 6\)"):
        ConvolutionSection(torch.zeros(5, 5, D_IN, D_OUT), (3, 6))


def test_blocks_whose_paths_do_not_meet_are_refused():
    generator = torch.Generator().manual_seed(3)
    with pytest.raises(ValueError, match="grids"):
        residual_convolution(generator, (D_IN, 4, D_OUT), (4, 4), ((3, 1, 1), (2, 2, 0), POINTWISE), torch.relu)
    with pytest.raises(ValueError, match="residual stride 1; expected 2"):
        residual_convolution(generator, (D_IN, 4, D_OUT), (4, 4), ((3, 1, 1), (2, 2, 0), (3, 1, 0)), torch.relu)
