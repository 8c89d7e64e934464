"""On a CUDA device every section, statistic and basis is what it is on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from section_cases import CLOSED_FORM, D_IN, D_OUT, RULES, SECTIONS, case_of
from tiny_models import (
    AMPLE,
    FITTED,
    basis_of,
    convolution,
    largest_difference,
    random,
    random_activation,
    random_chain,
    residual_convolution,
    stream_of,
)
from torch import Generator, Tensor
from torch.nn import functional

from libcore.ablation import accuracy, edge_ablation, node_ablation, unablated_score
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.fit_settings import FitSettings
from libcore.graph import interaction_edges
from libcore.integers import ScaledIntegers
from libcore.methods import METHODS
from libcore.sections import AffineSection, ClosedForm, Section
from libcore.sections.base import moved_to
from libcore.sections.kept import kept_evaluation
from libcore.sections.masked import masked_evaluation
from libcore.statistics import chain_statistics

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
GPU = torch.device("cuda")
BUDGETS = (20_000, AMPLE)
WITH_CONVOLUTIONS = CLOSED_FORM | {
    "convolution": lambda generator: convolution(generator, D_IN, D_OUT, (3, 3), 2, padding=1),
    "residual_convolution": lambda generator: residual_convolution(
        generator, (D_IN, 5, D_OUT), (3, 3), ((2, 1, 1), (2, 1, 0), (1, 1, 0)), functional.gelu
    ),
}


def moved(section: Section) -> Section:
    return section.to(device=GPU)


def assert_same(on_gpu: Tensor, on_cpu: Tensor, tolerance: float = 1e-10) -> None:
    assert on_gpu.is_cuda
    assert on_gpu.dtype == on_cpu.dtype
    assert on_gpu.shape == on_cpu.shape
    assert (on_gpu.cpu() - on_cpu).abs().max() <= tolerance * on_cpu.abs().max()


@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", WITH_CONVOLUTIONS)
def test_closed_forms(generator: Generator, name: str, rule: str, memory_budget: int) -> None:
    case = case_of(WITH_CONVOLUTIONS[name](generator), generator, positions=9)
    quadrature, _ = RULES[rule]
    found = []
    for device in (torch.device("cpu"), GPU):
        section, bases = case.section.to(device=device), [b.to(device=device) for b in (case.basis, case.next_basis)]
        assert isinstance(section, ClosedForm)
        stream = stream_of(case.activation.to(device), memory_budget)
        found.append(
            (
                section.closed_form_jacobian_gram(stream, bases[1], quadrature),
                section.closed_form_edges(stream, bases[0], bases[1], quadrature),
            )
        )
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert_same(on_gpu, on_cpu)


@pytest.mark.parametrize("name", SECTIONS)
def test_differentiation(generator: Generator, name: str) -> None:
    case = case_of(SECTIONS[name](generator), generator)
    quadrature, _ = RULES["gauss_legendre"]
    section, stream = moved(case.section), stream_of(case.activation.to(GPU), 20_000)
    basis, next_basis = case.basis.to(device=GPU), case.next_basis.to(device=GPU)
    on_cpu = stream_of(case.activation)
    assert_same(
        exact_jacobian_gram(section, stream, next_basis, quadrature),
        exact_jacobian_gram(case.section, on_cpu, case.next_basis, quadrature),
    )
    assert_same(
        exact_edges(section, stream, basis, next_basis, quadrature),
        exact_edges(case.section, on_cpu, case.basis, case.next_basis, quadrature),
    )


@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("name", SECTIONS)
def test_kept_and_masked_evaluations(generator: Generator, name: str, repeated: bool) -> None:
    """With tables where activations repeat, and without."""
    section = SECTIONS[name](generator)
    table = random(generator, 3, 3 if repeated else 60, D_IN)
    activation = table[torch.arange(3), torch.randint(table.shape[1], (60, 3), generator=generator)]
    basis = basis_of(random(generator, D_IN, 6), random(generator, 6, D_IN))
    next_basis = basis_of(random(generator, D_OUT, 7))
    masks = torch.rand(7, 6, generator=generator) < 0.5
    found = []
    for device in (torch.device("cpu"), GPU):
        here, there = basis.to(device=device), next_basis.to(device=device)
        inputs = activation.to(device)
        kept = kept_evaluation(section.to(device=device), stream_of(inputs), here)((0, 2, 6))(10, 50)
        evaluate = masked_evaluation(section.to(device=device), inputs @ here.to_basis, here, there, AMPLE)
        found.append([*(output.clone() for output in kept), evaluate(masks.to(device))])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert_same(on_gpu, on_cpu)


def chains(generator: Generator) -> tuple[Chain, Chain, Tensor]:
    """The same on either device, and inputs for it."""
    chain = random_chain(generator)
    return chain, replace(chain, sections=moved_to(chain.sections, GPU, None)), random_activation(generator, 40, 3, 4)


@pytest.mark.parametrize("name", FITTED)
def test_bases_edges_and_ablations(generator: Generator, name: str) -> None:
    on_cpu, on_gpu, inputs = chains(generator)
    labels = torch.randint(5, (40,), generator=generator)
    found = []
    for chain, device in ((on_cpu, torch.device("cpu")), (on_gpu, GPU)):
        statistics = chain_statistics(chain, inputs.to(device), AMPLE)
        bases = METHODS[name](chain, inputs.to(device), statistics, FitSettings(memory_budget=AMPLE))
        edges = interaction_edges(chain, inputs.to(device), bases, memory_budget=AMPLE)
        assert all(strengths.device.type == device.type for strengths in edges.values())
        data = accuracy(inputs.to(device), labels.to(device))
        score = unablated_score(chain, data, AMPLE)
        curves = []
        for index, layer in enumerate(chain.node_layers[:-1]):
            pair = bases[layer], bases[chain.node_layers[index + 1]]
            curves.append(node_ablation(chain, data, index, pair[0], range(5), [0.01], score, AMPLE))
            curves.append(edge_ablation(chain, data, index, pair, edges[layer], [0.01], score, AMPLE))
        found.append((bases, edges, curves))
    (bases, edges, curves), (gpu_bases, gpu_edges, gpu_curves) = found
    for layer in on_cpu.node_layers:
        assert_same_basis(gpu_bases[layer], bases[layer])
        if layer in edges:
            assert_same(gpu_edges[layer], edges[layer], 1e-8)
    assert gpu_curves == curves


def assert_same_basis(on_gpu: Basis, on_cpu: Basis) -> None:
    """Up to signs; the tolerance is what directions close in importance turn by."""
    assert on_gpu.to_basis.is_cuda
    assert largest_difference(on_gpu.importance.cpu(), on_cpu.importance) < 1e-10
    signs = (on_gpu.to_basis.cpu() * on_cpu.to_basis).sum(0).sign()
    assert largest_difference(on_gpu.to_basis.cpu() * signs, on_cpu.to_basis) < 1e-8


def test_moments_of_pixels(generator: Generator) -> None:
    pixels = torch.randint(256, (700, 3, 4, 4), generator=generator, dtype=torch.uint8)
    section = AffineSection(random(generator, 49, 5))
    found = []
    for device in (torch.device("cpu"), GPU):
        embed = ScaledIntegers(255, torch.float64, device)
        chain = Chain(("input", "output"), (section.to(device=device),), embed, last_has_constant=False)
        found.append(chain_statistics(chain, pixels.to(device), AMPLE))
    for layer, on_cpu in found[0].items():
        assert_same(found[1][layer].mean, on_cpu.mean, 1e-12)
        assert_same(found[1][layer].gram, on_cpu.gram, 1e-12)


def test_float32_products_are_not_rounded_further(generator: Generator) -> None:
    """A convolution may be rounded to ten bits (TF32) unless that is turned off."""
    section = convolution(generator, 16, 16, (8, 8), 3, padding=1).to(dtype=torch.float32)
    activation = random(generator, 20, 64, 16).float()
    assert_same(moved(section)(activation.to(GPU)), section(activation), 1e-5)


def test_a_budget_holds_on_the_gpu(generator: Generator) -> None:
    _, chain, _ = chains(generator)
    inputs = random_activation(generator, 100_000, 3, 4).to(GPU)
    budget = 2**21
    statistics = chain_statistics(chain, inputs, budget)
    bases = METHODS["lib"](chain, inputs, statistics, FitSettings(memory_budget=budget))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    chain_statistics(chain, inputs, budget)
    interaction_edges(chain, inputs, bases, memory_budget=budget)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= budget + 40_000
