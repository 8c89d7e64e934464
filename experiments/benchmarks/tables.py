"""The results as Markdown, to be pasted into a document as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def markdown_of(results: dict[str, Any]) -> str:
    """Everything that was measured, one section each."""
    parts = ["# Benchmark", about(results)]
    if results["models"]:
        parts += ["## Stages", STAGES_EXPLAINED, stage_table(results["models"])]
        parts += ["What the time goes into, on one thread:", held_back_table(results["models"])]
    if results["scaling"]:
        parts += ["## Scaling", SCALING_EXPLAINED, scaling_table(results["scaling"])]
    if results["memory"]:
        parts += ["## Memory", MEMORY_EXPLAINED, memory_table(results["memory"])]
    if results["busy"]:
        parts += ["## Threads beside a busy process", busy_table(results["busy"])]
    if results["dtypes"]:
        parts += ["## float32", DTYPES_EXPLAINED, dtype_table(results["dtypes"])]
    return "\n\n".join(parts) + "\n"


STAGES_EXPLAINED = (
    "Seconds are medians. *Straightforward*: one backward pass per output feature and position over the whole batch, "
    "ablations by a full pass for every number of features and by a masked pass for every output feature; timed on "
    "the slice and scaled up. *Apart*: of both results on the slice, relative. *Limit*: operations of the closed "
    "forms (of ablations: of the products carried out) over the rate of matrix products."
)
SCALING_EXPLAINED = "Exponents of the time, fitted to the upper half of the sizes, at least three of them."
MEMORY_EXPLAINED = "Peak of the whole process in megabytes, the interpreter and its libraries among them."
DTYPES_EXPLAINED = (
    "Importances above 1e-6 of the largest, and edges between the same bases, against float64; relative, the largest."
)


def about(results: dict[str, Any]) -> str:
    """Machine, rates, load."""
    machine, rates = results["machine"], results["matrix_rates"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['device']}, {machine['cores']} cores, {results['threads']} threads; {versions}, Python "
        f"{machine['python']}; commit {(machine['git_commit'] or 'unknown')[:12]}; {machine['measured']}.",
        f"Matrix products: {rates['float64'] / 1e9:.0f} GFLOP/s in float64, {rates['float32'] / 1e9:.0f} in float32. "
        f"Load average {loads(machine['load'])} before, {loads(results['load_after'])} after. "
        f"Medians of {results['runs']} runs.",
    ]
    lines += [
        f"{model['model']}: {model['described']}; {model['examples']} examples, ablations on {model['test_examples']}"
        + (f" of {', '.join(model['ablated_layers'])}" if is_partly_ablated(model) else "")
        + "."
        for model in results["models"]
    ]
    return "\n\n".join(lines)


def is_partly_ablated(model: dict[str, Any]) -> bool:
    """Whether ablations leave node layers out."""
    return len(model["ablated_layers"]) < len(model["node_layers"]) - 1


def loads(averages: Sequence[float] | None) -> str:
    """`0.1, 0.2, 0.3`."""
    return "unknown" if averages is None else ", ".join(f"{average:g}" for average in averages)


def stage_table(models: Sequence[dict[str, Any]]) -> str:
    """Every stage of every model."""
    head = ("model", "stage", "seconds", "straightforward", "on", "ratio", "apart", "limit", "share", "peak", "added")
    rows = [
        (
            model["model"],
            row["stage"] + (f" ({row['evaluations']} evaluations)" if "evaluations" in row else ""),
            f"{row['seconds']:.3g} s",
            f"{row['straightforward_seconds']:.3g} s",
            row["slice"],
            f"{row['ratio']:.3g}",
            f"{row['difference']:.0e}",
            f"{row['limit_seconds']:.2g} s",
            f"{row['share_of_limit']:.0%}",
            gigabytes(row["peak_memory"]),
            gigabytes(row["added_memory"]),
        )
        for model in models
        for row in model["stages"]
    ]
    return table(head, "llrrlrrrrrr", rows)


def held_back_table(models: Sequence[dict[str, Any]]) -> str:
    """A sentence for every stage."""
    rows = [(model["model"], row["stage"], row["holds_back"]) for model in models for row in model["stages"]]
    return table(("model", "stage", "time goes into"), "lll", rows)


def scaling_table(curves: Sequence[dict[str, Any]]) -> str:
    """Exponents."""
    stages = ("statistics", "basis", "edges")
    rows = [
        (
            curve["what"],
            curve["model"],
            f"{curve['sizes'][0]} … {curve['sizes'][-1]}",
            *(f"{curve['exponents'][stage]:.2f}" if stage in curve["exponents"] else "" for stage in stages),
        )
        for curve in curves
    ]
    return table(("varies", "model", "from … to", *stages), "lllrrr", rows)


def memory_table(memory: dict[str, Any]) -> str:
    """By stage and number of tokens."""
    peaks = memory["peaks"]
    tokens = sorted({int(n_tokens) for of_stage in peaks.values() for n_tokens in of_stage})
    rows = [
        (stage, *(str(of_stage[str(n_tokens)]) if str(n_tokens) in of_stage else "" for n_tokens in tokens))
        for stage, of_stage in peaks.items()
    ]
    head = (f"{memory['model']}, budget {memory['budget']} MB; tokens:", *(f"{n_tokens:,}" for n_tokens in tokens))
    return table(head, "l" + "r" * len(tokens), rows)


def busy_table(busy: Sequence[dict[str, Any]]) -> str:
    """One thread and all."""
    rows = [
        (row["stage"], f"{row['seconds_of_one']:.3g} s", f"{row['seconds_of_all']:.3g} s", f"{row['ratio']:.2f}")
        for row in busy
    ]
    head = (f"stage ({busy[0]['model']})", "one thread", f"{busy[0]['threads']} threads", "ratio")
    return table(head, "lrrr", rows)


def dtype_table(dtypes: Sequence[dict[str, Any]]) -> str:
    """Seconds, differences, and needed counts at the tightest tolerance."""
    head = ("model", "dtype", "statistics", "basis", "edges", "node ablation", "edge ablation", "importances apart")
    rows = [
        (
            row["model"],
            row["dtype"],
            *(f"{seconds:.3g} s" for seconds in row["seconds"].values()),
            f"{row['importances']:.0e}",
            f"{row['edges']:.0e}",
            counts(row["needed"]["node ablation"]),
            counts(row["needed"]["edge ablation"]),
            {None: "", True: "yes", False: "no"}[row["same_needed"]],
        )
        for row in dtypes
    ]
    head = (*head, "edges apart", "features needed", "edges needed", "all counts equal")
    return table(head, "llrrrrrrrlll", rows)


def counts(needed: dict[str, dict[str, int]]) -> str:
    """At the tightest tolerance, node layer by node layer."""
    return ", ".join(str(of_layer[min(of_layer, key=float)]) for of_layer in needed.values())


def gigabytes(size: int) -> str:
    """`1.23 GB`."""
    return f"{size / 1e9:.2f} GB"


def table(head: Sequence[str], aligned: str, rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; `aligned` has an l or r for every column."""
    rules = "|".join("---" if side == "l" else "---:" for side in aligned)
    return "\n".join([f"| {' | '.join(head)} |", f"|{rules}|", *(f"| {' | '.join(row)} |" for row in rows)])
