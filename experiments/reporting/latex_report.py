"""The report's tables for a paper, as LaTeX with booktabs, to be read with `\\input`."""

from __future__ import annotations

import re

from experiments.reporting.contents import Report, Section
from experiments.reporting.tables import Entry, Table

PREAMBLE = r"""% Tables of a comparison of interaction bases: \input{report.tex} in a document whose preamble has
%   \usepackage[T1]{fontenc}
%   \usepackage{booktabs}
%   \usepackage{graphicx}
"""
SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "Λ": r"$\Lambda$",
    "σ": r"$\sigma$",
}
"""How signs are written that LaTeX takes for its own or that its fonts lack."""
LARGEST_BARE = 60
"""Rows of a table that fit a page; a longer one goes on in the next."""


def to_latex(report: Report) -> str:
    """A `table` for every overview, and for every setting its totals and its metrics at the tightest tolerance."""
    parts = [PREAMBLE]
    for model in report.models:
        if model.overview is not None:
            parts += tables(model.overview, f"{model.title}: {model.overview.caption}", f"{model.title}-settings")
        for section in model.sections:
            parts += section_tables(section)
    return "\n".join(parts)


def section_tables(section: Section) -> list[str]:
    """One setting's."""
    found = section.evidence
    evidence = [] if found is None else [*found.tables, *(noted.table for noted in found.of_data)]
    found = [table for table in (section.totals, section.short, *evidence) if table is not None]
    return [
        text
        for table in found
        for text in tables(table, f"{section.title}: {table.caption}", f"{table.caption}{section.stem}")
    ]


def tables(table: Table, caption: str, label: str) -> list[str]:
    """One table, in pieces that fit a page, never wider than the text."""
    starts = range(0, max(1, len(table.rows)), LARGEST_BARE)
    return [
        one_table(table, table.rows[start : start + LARGEST_BARE], caption, f"{label}-{start}" if start else label)
        for start in starts
    ]


def one_table(table: Table, rows: tuple[tuple[Entry, ...], ...], caption: str, label: str) -> str:
    """`table` and `tabular`; a box shrinks what is wider than the text."""
    columns = "l" * table.n_left + "r" * (len(table.head) - table.n_left)
    lines = [
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', label)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        row_of([escaped(name) for name in table.head]),
        r"\midrule",
        *(row_of([cell(entry) for entry in row]) for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def row_of(cells: list[str]) -> str:
    """Cells side by side."""
    return f"{' & '.join(cells)} \\\\"


def cell(entry: Entry) -> str:
    """A cell's text; names as they are typed in a typewriter's face."""
    return rf"\texttt{{{escaped(entry.text)}}}" if entry.is_code else escaped(entry.text)


def escaped(text: str) -> str:
    """On one line, without a sign that LaTeX takes for its own."""
    return "".join(SIGNS.get(sign, sign) for sign in " ".join(text.split()))
