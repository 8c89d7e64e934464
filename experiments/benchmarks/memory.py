"""Peak memory of statistics, basis and edges as the number of tokens grows: it should not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.drawn_cases import decoder_architecture, decoder_chain, drawn_tokens
from experiments.benchmarks.of_model import Tell
from experiments.benchmarks.sizes import Sizes
from experiments.pipeline.resources import measured
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.graph import interaction_edges
from libcore.methods.lib import fit_lib
from libcore.statistics import chain_statistics

BUDGET = 2**27
MEGABYTE = 2**20


def peak_memory(sizes: Sizes, device: torch.device, tell: Tell) -> dict[str, Any]:
    """Megabytes of the whole process by stage, each at every number of tokens that it was measured at.

    Tokens alone are as many numbers as there are, and counted, too.
    """
    architecture = decoder_architecture(2, sizes.width, 3 * sizes.width, sizes.sequence)
    chain = decoder_chain(architecture, device)(torch.float64)
    found: dict[str, dict[str, int]] = {}
    peaks_of(chain, drawn_tokens(1, architecture, device), found={}, all_stages=True)  # what a first pass reads in
    for n_tokens in sizes.memory_tokens:
        inputs = drawn_tokens(max(1, n_tokens // sizes.sequence), architecture, device)
        peaks_of(chain, inputs, found, all_stages=n_tokens <= sizes.memory_tokens_of_fit)
        reached = ", ".join(
            f"{stage} {peaks[str(n_tokens)]} MB" for stage, peaks in found.items() if str(n_tokens) in peaks
        )
        tell(f"{n_tokens:,} tokens: {reached}")
    return {"model": f"decoder of width {sizes.width}, 2 blocks", "budget": BUDGET // MEGABYTE, "peaks": found}


def peaks_of(chain: Chain, inputs: Tensor, found: dict[str, dict[str, int]], *, all_stages: bool) -> None:
    """Take the peaks of one number of tokens down."""
    n_tokens = str(inputs.numel())

    def take(stage: str, n_bytes: int) -> None:
        found.setdefault(stage, {})[n_tokens] = n_bytes // MEGABYTE

    with measured(inputs.device) as of_statistics:
        statistics = chain_statistics(chain, inputs, BUDGET)
    take("statistics", of_statistics.peak_memory)
    if not all_stages:
        return
    with measured(inputs.device) as of_basis:
        bases = fit_lib(chain, inputs, statistics, FitSettings(memory_budget=BUDGET))
    take("basis", of_basis.peak_memory)
    with measured(inputs.device) as of_edges:
        interaction_edges(chain, inputs, bases, memory_budget=BUDGET)
    take("edges", of_edges.peak_memory)
