"""How long statistics, basis and edges take as one size of the model or its data grows, all others fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.curve import exponent
from experiments.benchmarks.drawn_cases import decoder_architecture, decoder_chain, drawn_tokens
from experiments.benchmarks.machine import threads
from experiments.benchmarks.of_model import Tell
from experiments.benchmarks.timing import timed
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.constant import beside_constant, carrying_constant, with_constant
from libcore.estimators import jacobian_gram
from libcore.fit_settings import FitSettings
from libcore.graph import interaction_edges
from libcore.methods.lib import fit_lib
from libcore.quadrature import GRADIENT
from libcore.sections import AffineSection, ResidualElementwiseSection, Section
from libcore.statistics import chain_statistics

BUDGET = 2**27

Curve = dict[str, Any]
"""`what` varies, of which `model`, `sizes`, `seconds` and `exponents` by stage."""


def scaling_curves(unit: int, n_runs: int, device: torch.device, tell: Tell) -> list[Curve]:
    """All curves; sizes are multiples of `unit`."""
    found = []
    for what, model, sizes, compute in curves(unit, device):
        seconds: dict[str, list[float]] = {}
        for size in sizes:
            for stage, value in compute(size, n_runs).items():
                seconds.setdefault(stage, []).append(value)
        exponents = {stage: exponent(sizes, values) for stage, values in seconds.items()}
        found.append({"what": what, "model": model, "sizes": sizes, "seconds": seconds, "exponents": exponents})
        tell(f"{what} ({model}): " + ", ".join(f"{stage} ^{value:.2f}" for stage, value in exponents.items()))
    return found


def curves(
    unit: int, device: torch.device
) -> Iterator[tuple[str, str, list[int], Callable[[int, int], dict[str, float]]]]:
    """What varies, of which model, its sizes, and seconds by stage at one of them."""

    def doubled(smallest: int, n: int = 5) -> list[int]:
        return [smallest * 2**power for power in range(n)]

    def mlp(width: int, n_examples: int) -> tuple[Chain, Tensor]:
        return mlp_chain(width, device), drawn_rows(n_examples, width, device)

    def decoder(n_blocks: int, sequence: int, n_sequences: int) -> tuple[Chain, Tensor]:
        architecture = decoder_architecture(n_blocks, unit, 2 * unit, sequence)
        return decoder_chain(architecture, device)(torch.float64), drawn_tokens(n_sequences, architecture, device)

    def of_threads(count: int, n_runs: int) -> dict[str, float]:
        with threads(count):
            return stage_seconds(*mlp(2 * unit, 64 * unit), n_runs)

    def of_hidden_features(size: int, n_runs: int) -> dict[str, float]:
        section, rows = mlp_chain(2 * unit, device).sections[0], drawn_rows(128 * unit, 2 * unit, device)
        return {"basis": gram_seconds(section, rows, size, n_runs)}

    def of_attention_features(size: int, n_runs: int) -> dict[str, float]:
        return {"basis": gram_seconds(*attention_and_rows(unit, device), size, n_runs)}

    yield "examples", "MLP", doubled(16 * unit), lambda size, n: stage_seconds(*mlp(unit, size), n)
    yield "width", "MLP", doubled(unit // 2), lambda size, n: stage_seconds(*mlp(size, 16 * unit), n)
    yield "tokens a sequence", "decoder", doubled(unit // 4), lambda size, n: stage_seconds(*decoder(1, size, 4), n)
    yield "blocks", "decoder", [1, 2, 4, 8], lambda size, n: stage_seconds(*decoder(size, unit // 2, 2), n)
    yield "output features", "MLP", doubled(unit // 8 or 1), of_hidden_features
    yield "output features", "attention", doubled(unit // 16 or 1), of_attention_features
    available = torch.get_num_threads()
    if available > 1:
        yield "threads", "MLP", sorted({1, *(2**p for p in range(1, 9) if 2**p < available), available}), of_threads


def stage_seconds(chain: Chain, inputs: Tensor, n_runs: int) -> dict[str, float]:
    """Statistics, basis and edges."""
    device, settings = inputs.device, FitSettings(memory_budget=BUDGET)
    statistics = timed(lambda: chain_statistics(chain, inputs, BUDGET), n_runs, device)
    bases = timed(lambda: fit_lib(chain, inputs, statistics.result, settings), n_runs, device)
    edges = timed(lambda: interaction_edges(chain, inputs, bases.result, memory_budget=BUDGET), n_runs, device)
    return {"statistics": statistics.seconds, "basis": bases.seconds, "edges": edges.seconds}


def gram_seconds(section: Section, rows: Tensor, n_features: int, n_runs: int) -> float:
    """The Jacobian Gram to so many features of the next node layer, which is what of a basis depends on them."""
    with torch.no_grad():
        width = section(rows[:1]).shape[-1]
    chain = Chain(("from", "to"), (section,), lambda inputs: inputs, last_has_constant=True)
    next_basis = first_features(width, n_features, rows)
    stream = chain.stream(rows, 0, BUDGET)
    compute = partial(jacobian_gram, section, stream, next_basis, GRADIENT)
    compute()
    return timed(compute, n_runs, rows.device).seconds


def first_features(width: int, n_features: int, like: Tensor) -> Basis:
    """A basis of directions drawn at random."""
    to_basis = torch.randn(width, n_features, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    to_basis = to_basis.to(like.device) * width**-0.5
    return Basis(to_basis, to_basis.T, like.new_ones(n_features), has_constant=True)


def attention_and_rows(unit: int, device: torch.device) -> tuple[Section, Tensor]:
    """An attention section of a decoder, and activations that it reads."""
    architecture = decoder_architecture(1, unit, 2 * unit, unit)
    chain = decoder_chain(architecture, device)(torch.float64)
    with torch.no_grad():
        return chain.sections[0], chain.activation(drawn_tokens(4, architecture, device), 0)


def mlp_chain(width: int, device: torch.device) -> Chain:
    """A residual stream with one hidden layer of four times its width, read by an eighth as many logits."""
    generator = torch.Generator().manual_seed(0)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator) * shape[0] ** -0.5

    hidden = ResidualElementwiseSection(
        carrying_constant(torch.eye(width, dtype=torch.float64), None),
        matrix(width + 1, 4 * width),
        beside_constant(matrix(4 * width, width)),
        torch.nn.functional.relu,
    )
    readout = AffineSection(matrix(width + 1, max(2, width // 8)))
    sections = tuple(section.to(device=device) for section in (hidden, readout))
    return Chain(("residual", "read", "output"), sections, embed=lambda rows: rows, last_has_constant=False)


def drawn_rows(n_examples: int, width: int, device: torch.device) -> Tensor:
    """Activations `[example, 1, width + 1]`."""
    rows = torch.randn(n_examples, 1, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return with_constant(rows).to(device)


FLAT = 0.05
"""Exponent below which a time does not grow."""


def flat_in_output_features(found: Sequence[Curve]) -> dict[str, bool]:
    """Whether the basis's time is flat in the next node layer's features, by model."""
    return {curve["model"]: curve["exponents"]["basis"] < FLAT for curve in found if curve["what"] == "output features"}
