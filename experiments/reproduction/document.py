"""docs/REPRODUCTION.md: a table of claims, how verdicts are found, and which runs it all comes from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from experiments.evidence.sentences import short
from experiments.figures.groups import group_label
from experiments.pipeline.metric_keys import parse_metric
from experiments.reporting.settings import is_below
from experiments.reproduction.claims import ByBand, BySameWeights, Claim, Claims, Input, LeftOut
from experiments.reproduction.findings import finding_of, measure_of
from experiments.reproduction.inputs import OPTIONS
from experiments.reproduction.provenance import provenance_of
from experiments.reproduction.sweeps import WITHOUT_EFFECT, PaperRuns
from experiments.reproduction.verdicts import RULES, Verdict

INTRODUCTION = (
    "What the paper ([arXiv 2405.10928](https://arxiv.org/abs/2405.10928)) claims beside what runs here found. Its "
    "abstract gives directions, its public repository (ApolloResearch/rib) data: numbers are those, and where one was "
    "computed from them its source says so. `python -m experiments.reproduce` (`make paper`) writes this page from "
    "`conf/paper_claims.yaml` and finished runs: change those, not the page."
)
COMMAND = "python -m experiments.run"
NOTHING = "–"
PATH = re.compile(r"(?<![\w.~/-])/(?:[^\s/'\",;:]+/)*([^\s/'\",;:]*)")
"""An absolute path, its last part by itself."""
HEADING = "# Reproduction"
"""The page's first line, by which it is known."""
TITLES = {
    "importance_spectrum": "importance spectra",
    "node_ablation": "node ablation",
    "edge_ablation": "edge ablation",
    "interaction_graph": "interaction graphs",
    "communities": "communities",
}


FIGURE_OF = {
    "features/kept": "importance_spectrum",
    "features/needed": "node_ablation",
    "edges/needed": "edge_ablation",
    "graph/modularity": "communities",
}
"""By the kind of a metric."""


@dataclass(frozen=True)
class Shown:
    """One experiment in the document.

    Attributes:
        figures: addresses relative to the document, by what they show.
    """

    paper_runs: PaperRuns
    figures: Mapping[str, str] = field(default_factory=dict)


def document(claims: Claims, shown: Mapping[str, Shown], overrides: Sequence[str] = ()) -> str:
    """Markdown; `shown` has every experiment of the claims, `overrides` are those that all were given."""
    parts = [
        HEADING,
        INTRODUCTION,
        "## Claims",
        claim_table(claims, shown, overrides),
        "\n".join(f"{number}. {source}." for source, number in sources_of(claims).items()),
        "## How verdicts are found",
        *RULES,
        "## Runs",
        run_table(claims, shown),
        "Minutes are those of all runs, one after the other; what another experiment had computed was found again.",
        *figure_parts(shown),
    ]
    return "\n\n".join(parts) + "\n"


def claim_table(claims: Claims, shown: Mapping[str, Shown], overrides: Sequence[str]) -> str:
    """How many claims hold, and a row for each; those that are left out last."""
    sources = sources_of(claims)
    rows = [
        [
            claim_cell(claim, sources),
            paper_number(claim),
            *claim_cells(claim, shown[claim.experiment]),
            command_cell(claim.experiment, claims.experiments[claim.experiment].needs, overrides),
        ]
        for claim in claims.claims
    ]
    rows += [
        [claim_cell(one, sources), NOTHING, f"{one.reason}.", "not run", NOTHING, in_lines(one.command.split())]
        for one in claims.left_out
    ]
    head = ["claim, and its source", "the paper", "here", "verdict", "figure", f"`{COMMAND}` …"]
    return f"{counted_verdicts([row[3] for row in rows])}\n\n{table(head, rows)}"


def counted_verdicts(cells: Sequence[str]) -> str:
    """`Of 20 claims: holds 12, undecided 8.`"""
    counts = Counter(cell.strip("*") for cell in cells)
    return (
        f"Of {len(cells)} claims: {', '.join(f'{name} {counts[name]}' for name in get_args(Verdict) if counts[name])}."
    )


def sources_of(claims: Claims) -> dict[str, int]:
    """Each source's number, in the order of the claims."""
    named = dict.fromkeys(claim.source for claim in (*claims.claims, *claims.left_out))
    return {source: number for number, source in enumerate(named, start=1)}


def claim_cell(claim: Claim | LeftOut, sources: Mapping[str, int]) -> str:
    """Which models, what is claimed, and the number of its source."""
    return f"*{claim.about}*<br>{claim.claim}. [{sources[claim.source]}]"


def claim_cells(claim: Claim, of_experiment: Shown) -> list[str]:
    """Ours, the verdict and the figure."""
    paper_runs = of_experiment.paper_runs
    if not paper_runs.runs:
        return [f"{without_folders(paper_runs.reason).removesuffix('.')}.", "not run", NOTHING]
    finding = finding_of(claim, paper_runs.runs)
    return ["<br>".join(finding.ours), f"**{finding.verdict}**", figure_of(claim, of_experiment.figures)]


def command_cell(experiment: str, needs: Sequence[Input], overrides: Sequence[str]) -> str:
    """What the command is given, without paths of this machine, and without what no number depends on."""
    given = [f"{OPTIONS[need].key}={OPTIONS[need].placeholder}" for need in needs]
    keys = (*WITHOUT_EFFECT, *(OPTIONS[need].key for need in needs))
    given += [without_folders(one) for one in overrides if not is_below(one.partition("=")[0], keys)]
    return in_lines([f"experiment={experiment}", *given])


def in_lines(arguments: Sequence[str]) -> str:
    """One below the other."""
    return "<br>".join(f"`{argument}`" for argument in arguments)


def without_folders(text: str) -> str:
    """Absolute paths as their last part."""
    return PATH.sub(r"\1", text)


def figure_of(claim: Claim, figures: Mapping[str, str]) -> str:
    """A link to the figure of what the claim's first metric is about, else to the experiment's first."""
    kind = parse_metric(claim.metrics[0]).kind
    name = FIGURE_OF.get(kind) if FIGURE_OF.get(kind) in figures else next(iter(figures), None)
    return NOTHING if name is None else f"[{TITLES[name]}]({figures[name]})"


def paper_number(claim: Claim) -> str:
    """The paper's side, with its tolerance."""
    how = claim.compared
    if isinstance(how, BySameWeights):
        values = ", ".join(f"{short(value)} (seed {seed})" for seed, value in how.values.items())
        return f"{values}; ± {short(100 * how.relative_tolerance)} %"
    if isinstance(how, ByBand):
        return f"{measure_of(claim.metrics[0]).scale} {short(how.value)} ± {short(how.tolerance)}"
    return f"{group_label(how.method)}'s is {how.direction}; no number"


def run_table(claims: Claims, shown: Mapping[str, Shown]) -> str:
    """Where the numbers come from: models, how many runs, how long they took, when and on what."""
    rows = []
    for name in claims.experiments:
        runs = shown[name].paper_runs.runs
        provenance = provenance_of(runs)
        models = ", ".join(dict.fromkeys(f"`{run.model_title}`" for run in runs)) or NOTHING
        rows.append(
            [f"`{name}`", models, str(len(runs)), provenance.minutes, provenance.dates, provenance.made_with]
            if runs
            else [f"`{name}`", NOTHING, "0", NOTHING, NOTHING, NOTHING]
        )
    return table(["experiment", "models", "runs", "minutes", "date", "made with"], rows)


def figure_parts(shown: Mapping[str, Shown]) -> list[str]:
    """Every figure with a line on what it is."""
    pictures = [
        f"![{TITLES[figure].capitalize()}, {name}]({address})\n\n*`{name}`: {TITLES[figure]}.*"
        for name, of_experiment in shown.items()
        for figure, address in of_experiment.figures.items()
    ]
    return ["## Figures", *pictures] if pictures else []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; what would end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def report_folder(paper_runs: PaperRuns) -> Path | None:
    """Where the sweep's report lies, of runs that the document shows."""
    return paper_runs.record.folder if paper_runs.record is not None and paper_runs.runs else None
