"""One model: every stage timed, against the straightforward way and against the machine's limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from experiments.benchmarks.cases import Case
from experiments.benchmarks.comparison import Straightforward
from experiments.benchmarks.machine import Rates
from experiments.benchmarks.operations import basis_operations, edge_operations, statistics_operations
from experiments.benchmarks.stages import STAGES, Stages, evaluations
from experiments.benchmarks.tally import Tally, seconds_at, tallied
from experiments.benchmarks.timing import timed

Tell = Callable[[str], None]


def benchmark_model(case: Case, n_runs: int, rates: Rates, rates_of_one: Rates, tell: Tell) -> dict[str, Any]:
    """Rows of all stages, as JSON.

    Args:
        case: what is timed.
        n_runs: of each stage; their median counts.
        rates: of matrix products with the threads that are used.
        rates_of_one: with one thread.
        tell: given a line as each stage is done.
    """
    stages, rows = Stages(case), []
    for stage in STAGES:
        compute = stages.compute(stage)
        taken = timed(compute, n_runs, case.device)
        tally = tallied(compute, case.device)
        operations = operations_of(stage, stages, tally)
        limit = seconds_at(operations, rates)
        compared = Straightforward(stages).compare(stage)
        row = {
            "stage": stage,
            "seconds": taken.seconds,
            "runs": taken.runs,
            "peak_memory": taken.peak_memory,
            "added_memory": taken.added_memory,
            "straightforward_seconds": compared.seconds,
            "straightforward_measured_seconds": compared.measured_seconds,
            "slice": compared.slice,
            "ratio": compared.seconds / taken.seconds,
            "difference": compared.difference,
            "operations": dict(operations),
            "limit_seconds": limit,
            "share_of_limit": limit / taken.seconds,
            "shares": tally.shares,
            "holds_back": held_back(tally, operations, rates_of_one),
        }
        if stage in ("node ablation", "edge ablation"):
            row["evaluations"] = evaluations(taken.result)
        rows.append(row)
        tell(f"{case.name}: {stage}: {taken.seconds:.3g} s, {row['ratio']:.0f} times, {row['share_of_limit']:.0%}")
    chain = case.chain(torch.float64)
    return {
        "model": case.name,
        "described": case.described,
        "examples": len(case.inputs),
        "test_examples": len(case.test.inputs),
        "node_layers": list(chain.node_layers),
        "ablated_layers": [chain.node_layers[index] for index in case.ablated],
        "features": {layer: basis.n_features for layer, basis in stages.bases.items()},
        "stages": rows,
    }


def operations_of(stage: str, stages: Stages, tally: Tally) -> Counter[str]:
    """Of the closed forms; of an ablation those that the evaluations it asks for took, which have no formula."""
    chain, inputs = stages.case.chain(stages.fit_dtype), stages.case.inputs
    if stage == "statistics":
        return statistics_operations(chain, inputs)
    if stage == "basis":
        return basis_operations(chain, inputs, stages.bases)
    if stage == "edges":
        return edge_operations(chain, inputs, stages.bases)
    return tally.operations


def held_back(tally: Tally, operations: Counter[str], rates_of_one: Rates) -> str:
    """What the time goes into, in a sentence made from what was measured."""
    parts = []
    for kind, share in tally.shares.items():
        if share < 0.05:
            continue
        text = f"{share:.0%} {kind}"
        near = tally.rate_share(rates_of_one) if kind == "matrix products" else None
        if near is not None:
            text += f" at {near:.0%} of the rate"
            done = seconds_at(tally.operations, rates_of_one) / seconds_at(operations, rates_of_one)
            if abs(done - 1) > 0.05:
                text += f", {done:.2g} times the operations counted"
        parts.append(text)
    return "; ".join(parts)
