"""Does LIB beat a baseline, and by how much: for each criterion the report's means, and what they are evidence of."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.config.scores import Score
from experiments.figures.groups import group_label
from experiments.pipeline.metric_keys import TOTAL, tolerance_of
from experiments.reporting.comparison import Cell, Comparison, entry_of
from experiments.reporting.evidence_rows import EvidenceRow
from experiments.reporting.tables import Entry, Table

CRITERIA = {"features": "node layers", "edges": "pairs of node layers"}
"""What is counted as needed, and in how many of what it is compared."""


def verdicts(comparison: Comparison, score: Score, evidence: Sequence[EvidenceRow] = ()) -> list[str]:
    """LIB beside every other method by features needed, edges needed and modularity; nothing without LIB.

    Needed counts are those at the tightest tolerance. Layers are no models: `evidence` says what holds over these.
    """
    if "lib" not in comparison.methods:
        return []
    sentences: list[str] = []
    for other in comparison.methods:
        if other == "lib":
            continue
        for kind in CRITERIA:
            tolerance = min(tolerances(comparison, kind), default=None)
            if tolerance is not None:
                sentences += needed_verdict(comparison, kind, tolerance, other, score, evidence)
        sentences += modularity_verdict(comparison, other, evidence)
    return sentences


def needed_verdict(
    comparison: Comparison, kind: str, tolerance: float, other: str, score: Score, evidence: Sequence[EvidenceRow]
) -> list[str]:
    """In how many layers or pairs LIB needs fewer, and the totals; nothing where one of the two was not ablated."""
    rows = needed_rows(comparison, kind, tolerance)
    compared = [
        (ours, theirs) for row in rows if (ours := row["lib"]) is not None and (theirs := row[other]) is not None
    ]
    if not compared:
        return []
    fewer = sum(ours.mean < theirs.mean for ours, theirs in compared)
    equal = sum(ours.mean == theirs.mean for ours, theirs in compared)
    ties = f" and as many in {equal}" if equal else ""
    totals = [total_of([pair[index] for pair in compared]) for index in (0, 1)]
    in_all = f"; in all {totals[0].text()} against {totals[1].text()}" if totals[0] and totals[1] else ""
    return [
        f"{kind.capitalize()} needed ({score.tolerated(tolerance)}): in means over runs LIB needs fewer than "
        f"{group_label(other)} in {fewer} of {len(compared)} {CRITERIA[kind]}{ties}{in_all}."
        f"{claim_of(evidence, other, f'{kind}/needed', tolerance)}"
    ]


def modularity_verdict(comparison: Comparison, other: str, evidence: Sequence[EvidenceRow]) -> list[str]:
    """Whose graph is the more modular; nothing where one of the two has no edges."""
    row = comparison.rows.get("graph/modularity", {})
    ours, theirs = row.get("lib"), row.get(other)
    if ours is None or theirs is None:
        return []
    claim = claim_of(evidence, other, "graph/modularity", None)
    return [f"Modularity: {ours.text()} (LIB) against {theirs.text()} ({group_label(other)}).{claim}"]


def claim_of(evidence: Sequence[EvidenceRow], other: str, kind: str, tolerance: float | None) -> str:
    """What LIB beside another method shows of the whole model, a space before it; empty without a common model."""
    found = (
        row
        for row in evidence
        if (row.method, row.against, row.key.kind, row.key.tolerance) == ("lib", other, kind, tolerance)
        and row.key.is_whole
    )
    if (row := next(found, None)) is None:
        return ""
    if len(row.comparison.pairs) == 1:
        return f" Of one model: nothing is said of others. {row.floor_sentence}".rstrip()
    return f" Over models{', in all' if tolerance is not None else ''}: {row.claim}"


def totals_table(comparison: Comparison) -> Table | None:
    """Needed features and edges over all layers at every tolerance, and modularity; None where nothing was counted."""
    rows: list[tuple[Entry, ...]] = []
    for kind in CRITERIA:
        for tolerance in sorted(tolerances(comparison, kind)):
            needed = needed_rows(comparison, kind, tolerance)
            totals = (total_of([row[method] for row in needed]) for method in comparison.methods)
            rows.append((Entry(f"{kind} needed, {tolerance:g}"), *map(entry_of, totals)))
    if (row := comparison.rows.get("graph/modularity")) is not None:
        rows.append((Entry("modularity"), *(entry_of(row[method]) for method in comparison.methods)))
    head = ("over all node layers", *map(group_label, comparison.methods))
    return Table("totals", head, tuple(rows)) if rows else None


def needed_rows(comparison: Comparison, kind: str, tolerance: float) -> list[dict[str, Cell | None]]:
    """What was counted at a tolerance, of each node layer or pair."""
    return [
        row
        for name, row in comparison.rows.items()
        if tolerance_of(name, kind) == tolerance and not name.endswith(f"/{TOTAL}")
    ]


def total_of(cells: list[Cell | None]) -> Cell | None:
    """Each run's sum over the cells; None where a run lacks one of them."""
    values = [cell.values for cell in cells if cell is not None]
    if not values or len(values) < len(cells) or len({len(of_cell) for of_cell in values}) > 1:
        return None
    return Cell(tuple(sum(of_run) for of_run in zip(*values, strict=True)))


def tolerances(comparison: Comparison, kind: str) -> set[float]:
    """Those at which needed features or edges were counted."""
    found = (tolerance_of(name, kind) for name in comparison.rows)
    return {tolerance for tolerance in found if tolerance is not None}
