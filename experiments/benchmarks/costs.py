"""`lib-benchmark costs`: what stages are said to take, against what they take; and what known decoders' would."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from experiments.benchmarks.drawn_cases import decoder_architecture, decoder_chain, drawn_tokens
from experiments.benchmarks.known_decoders import DECODERS, Decoder
from experiments.benchmarks.machine import machine, matrix_rates, threads
from experiments.benchmarks.timing import timed
from experiments.pipeline.console import duration
from experiments.pipeline.estimate import SHARE_OF_RATE, in_words, size
from experiments.pipeline.resources import keep_freed_memory
from libcore.ablation import Ablated
from libcore.costs.ablations import Evaluated, edge_ablation_cost, node_ablation_cost, score_cost
from libcore.costs.cost import Cost
from libcore.costs.fitting import Fit, basis_cost, edges_cost, statistics_cost
from libcore.costs.shapes import ChainShapes
from libcore.fit_settings import FitSettings
from libcore.graph import interaction_edges
from libcore.methods.lib import fit_lib
from libcore.statistics import chain_statistics

Result = TypeVar("Result")
BUDGET = 2**27
SEQUENCES, TOKENS, EDGE_SEQUENCES, TEST_SEQUENCES = 128, 128, 8, 64
"""Of known decoders: bases from the first, edges from 1,024 tokens, ablations on the last."""
ABLATED_LAYERS, ABLATED_PAIRS, TOLERANCES = 6, 2, (0.01, 0.05, 0.1)
RATE_OF_GPU = 30e12
"""Operations per second of one, assumed."""
GPUS = (1, 8, 64)


def main(arguments: Sequence[str]) -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(
        prog="lib-benchmark costs",
        description="Operations, memory and disk of every stage as formulas of the shapes: against CPU seconds over a "
        "decade of sizes, and of known decoders.",
    )
    parser.add_argument("--parts", default="measured,decoders", help="some of %(default)s")
    parser.add_argument("--quick", action="store_true", help="toy sizes: to see it work, not to measure")
    options = parser.parse_args(arguments)
    device = torch.device("cpu")
    keep_freed_memory()
    with threads(1):
        rates = matrix_rates(device, (256, 1024), 0.1)
        described = machine(device)
        print(f"{described['device']}, one thread: {in_words(rates)}; {described['measured']}\n")
        if "measured" in options.parts:
            print_rows(measured(rates, options.quick))
    if "decoders" in options.parts:
        for decoder in DECODERS:
            print(f"\n### {decoder.name}\n")
            print_rows(rows_of(decoder, rates))


def print_rows(rows: Iterator[Sequence[str]]) -> None:
    """As they come; the first is the heading."""
    for number, row in enumerate(rows):
        print(f"| {' | '.join(row)} |", flush=True)
        if number == 0:
            print("|---" * len(row) + "|")


def measured(rates: Mapping[str, float], quick: bool) -> Iterator[Sequence[str]]:
    """Of one block of a drawn decoder: CPU seconds and memory, expected and taken."""
    yield "what", "size", "stage", "operations", "expected", "taken", "ratio", "memory, at most", "taken"
    for what, sizes in SIZES.items():
        for width, tokens, sequences in sizes[:1] if quick else sizes:
            label = {"width": width, "tokens": tokens, "sequences": sequences}[what]
            for stage, cost, taken in stages_of(width // 8 if quick else width, tokens, sequences):
                expected = cost.seconds(rates) / SHARE_OF_RATE
                seconds = (f"{expected:.2g} s", f"{taken.seconds:.2g} s", f"{taken.seconds / expected:.2f}")
                yield what, str(label), stage, f"{cost.total:.1e}", *seconds, size(cost.memory), size(taken.memory)


SIZES = {
    "width": [(64, 64, 8), (128, 64, 8), (256, 64, 8), (640, 64, 4)],
    "tokens": [(256, 32, 8), (256, 64, 8), (256, 128, 4), (256, 320, 2)],
    "sequences": [(256, 64, 2), (256, 64, 8), (256, 64, 20)],
}
"""`(width, tokens, sequences)`, a decade of each."""


def stages_of(width: int, tokens: int, sequences: int) -> Iterator[tuple[str, Cost, Taken]]:
    """Stage, what it is said to take, and what it took."""
    device = torch.device("cpu")
    architecture = decoder_architecture(1, width, 2 * width, tokens)
    chain, inputs = decoder_chain(architecture, device)(torch.float32), drawn_tokens(sequences, architecture, device)
    shapes, fit = ChainShapes.of(chain, inputs), Fit(sequences, BUDGET)
    statistics, taken = taking(lambda: chain_statistics(chain, inputs, BUDGET))
    yield "statistics", statistics_cost(shapes, fit), taken
    bases, taken = taking(lambda: fit_lib(chain, inputs, statistics, FitSettings(memory_budget=BUDGET)))
    features = [bases[layer].n_features for layer in chain.node_layers]
    yield "basis", basis_cost(shapes, fit, features), taken
    _, taken = taking(lambda: interaction_edges(chain, inputs, bases, memory_budget=BUDGET))
    yield "edges", edges_cost(shapes, fit, features), taken


@dataclass(frozen=True)
class Taken:
    """CPU seconds of this process, and bytes by which its peak grew."""

    seconds: float
    memory: int


def taking(compute: Callable[[], Result]) -> tuple[Result, Taken]:
    """The second time: the first one sets up libraries."""
    compute()
    began = time.process_time()
    found = timed(compute, 1, torch.device("cpu"))
    return found.result, Taken(time.process_time() - began, found.added_memory)


def rows_of(decoder: Decoder, rates: Mapping[str, float]) -> Iterator[Sequence[str]]:
    """Of one decoder, stage by stage."""
    gpus = [f"{n} GPU{'s' if n > 1 else ''}" for n in GPUS]
    yield "stage", "operations", "memory", "disk", "two cores", *gpus
    some, more = costs_of(decoder, 1), costs_of(decoder, 2)
    for stage, cost in some.items():
        # What every further sequence takes is shared by processes; what is left, eigenproblems most of all, is not.
        shared = more[stage].total - cost.total
        fixed = max(0, cost.total - shared)
        at_gpus = [duration((shared / n + fixed) / RATE_OF_GPU) for n in GPUS]
        on_cores = duration(cost.seconds(rates) / SHARE_OF_RATE / 2)
        operations = f"{'≤ ' if cost.at_most else ''}{cost.total:.1e}"
        yield stage, operations, size(cost.memory), size(cost.disk), on_cores, *at_gpus


def costs_of(decoder: Decoder, times: int) -> dict[str, Cost]:
    """Of every stage, with so many times the data."""
    shapes = decoder.shapes(TOKENS)
    features, budget, room = shapes.widths, 2**30, 2**40
    fit, of_edges = (Fit(times * n, budget, room) for n in (SEQUENCES, EDGE_SEQUENCES))
    data = Evaluated(times * TEST_SEQUENCES, budget, room, TOLERANCES, Ablated(every_number=False))
    middle = len(shapes.sections) // 2
    return {
        "score": score_cost(shapes, times * TEST_SEQUENCES, budget),
        "statistics": statistics_cost(shapes, fit),
        "basis": basis_cost(shapes, fit, features),
        "edges": edges_cost(shapes, of_edges, features),
        "node ablation": node_ablation_cost(shapes, data, range(middle, middle + ABLATED_LAYERS), features),
        "edge ablation": edge_ablation_cost(shapes, data, range(middle, middle + ABLATED_PAIRS), features),
    }
