"""What float32 changes: seconds, importances, edges and needed counts, against float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.cases import Case
from experiments.benchmarks.comparison import difference
from experiments.benchmarks.of_model import Tell
from experiments.benchmarks.stages import STAGES, Stages
from experiments.benchmarks.timing import timed
from libcore.basis import Basis
from libcore.graph import interaction_edges

COMPARED_ABOVE = 1e-6
"""Importances above this share of the largest are compared."""
DTYPES = {
    "float64": (torch.float64, torch.float64),
    "float64, ablations float32": (torch.float64, torch.float32),
    "float32": (torch.float32, torch.float32),
}
"""Of the fit, and of ablations. The second is the default."""


def float32_against_float64(case: Case, n_runs: int, tell: Tell) -> list[dict[str, Any]]:
    """A row for each of `DTYPES`, the first what the others are compared with."""
    rows, exact = [], None
    for name, (fit, ablation) in DTYPES.items():
        stages = Stages(case, fit, ablation)
        timings = {stage: timed(stages.compute(stage), n_runs, case.device) for stage in STAGES}
        exact = exact or stages
        needed = {
            kind: {
                layer: {f"{tolerance:g}": n for tolerance, n in curve.needed.items()}
                for layer, curve in timings[kind].result.items()
            }
            for kind in ("node ablation", "edge ablation")
        }
        rows.append(
            {
                "model": case.name,
                "dtype": name,
                "seconds": {stage: timing.seconds for stage, timing in timings.items()},
                "importances": importance_difference(stages.bases, exact.bases),
                "features": {layer: basis.n_features for layer, basis in stages.bases.items()},
                "edges": edge_difference(case, fit, exact),
                "needed": needed,
                "same_needed": None if stages is exact else needed == rows[0]["needed"],
            }
        )
        tell(
            f"{case.name}: {name}: importances {rows[-1]['importances']:.1e}, edges {rows[-1]['edges']:.1e}, "
            f"basis {timings['basis'].seconds:.3g} s, edges {timings['edges'].seconds:.3g} s"
        )
    return rows


def importance_difference(found: dict[str, Basis], exact: dict[str, Basis]) -> float:
    """The largest relative one, over node layers and those importances that are not next to nothing."""
    worst = 0.0
    for layer, basis in exact.items():
        expected, other = sorted_variable(basis), sorted_variable(found[layer])
        compared = int((expected > COMPARED_ABOVE * expected[:1]).sum())
        padded = torch.zeros(max(0, compared - len(other)), dtype=other.dtype, device=other.device)
        other = torch.cat([other, padded])[:compared]
        if compared:
            worst = max(worst, ((other - expected[:compared]).abs() / expected[:compared]).max().item())
    return worst


def sorted_variable(basis: Basis) -> Tensor:
    """Importances of all but the constant, the largest first."""
    return basis.importance[basis.variable].double().sort(descending=True).values


def edge_difference(case: Case, fit: torch.dtype, exact: Stages) -> float:
    """Of edges in this dtype between the float64 bases: the largest, relative to a layer pair's largest edge."""
    if fit == exact.fit_dtype:
        return 0.0
    budget = case.settings.memory_budget
    found = interaction_edges(case.chain(fit), case.inputs, exact.bases, memory_budget=budget)
    return max(difference(found[layer].double(), edges.double()) for layer, edges in exact.edges.items())
