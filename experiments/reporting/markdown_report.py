"""The report in Markdown; whatever runs, methods and directories are called, it stays in its place."""

from __future__ import annotations

import re

from experiments.reporting.contents import ModelPart, Report, Section
from experiments.reporting.report_figures import Figures
from experiments.reporting.tables import Entry, Table

TITLE = "Comparison of interaction bases"
SIGNS = re.compile(r"[\\`*<>\[\]|~]|(?<!\w)_|_(?!\w)")
"""What means something wherever it stands; an underscore inside a word does not."""


def to_markdown(report: Report) -> str:
    """The whole report."""
    lines = [f"# {TITLE}\n"]
    for model in report.models:
        lines += model_lines(model)
    if report.unfinished:
        lines.append("## Runs without results\n")
        lines += [f"- {code(line)}" for line in report.unfinished]
    return "\n".join(lines) + "\n"


def model_lines(model: ModelPart) -> list[str]:
    """Settings side by side, where there are several, then each of them."""
    lines: list[str] = []
    if model.overview is not None:
        lines = [f"## {escaped(model.title)}: {model.overview.caption}\n", markdown_table(model.overview)]
        lines += figure_lines(model.figures)
    for section in model.sections:
        lines += section_lines(section)
    return lines


def section_lines(section: Section) -> list[str]:
    """Verdicts, tables, figures, runs."""
    lines = [f"## {escaped(section.title)}\n", *(f"- {escaped(sentence)}" for sentence in section.verdicts), ""]
    lines += [f"{note}\n" for note in section.notes]
    lines += [f"[{escaped(text)}: both graphs]({address})\n" for text, address in section.pages.items()]
    tables = (section.totals, section.metrics)
    lines += [markdown_table(table) for table in tables if table is not None]
    lines += evidence_lines(section)
    return [*lines, *figure_lines(section.figures), markdown_table(section.runs), ""]


def evidence_lines(section: Section) -> list[str]:
    """How sure the differences between methods are, and what would decide what is not."""
    if (evidence := section.evidence) is None:
        return []
    lines = [f"### Evidence: {escaped(section.title)}\n", *([f"{evidence.note}\n"] if evidence.note else [])]
    for table in evidence.tables:
        lines += [f"{table.caption.capitalize()}:\n", markdown_table(table)]
    for noted in evidence.of_data:
        lines += [f"{noted.table.caption.capitalize()}: {noted.note}\n", markdown_table(noted.table)]
    return lines


def figure_lines(figures: Figures) -> list[str]:
    """An image each."""
    return [f"![{escaped(caption)}]({address})\n" for caption, address in figures.items()]


def markdown_table(table: Table) -> str:
    """With its head; columns that name the row stand left, numbers right."""
    rule = "".join("---|" if index == 0 else "---:|" for index in range(len(table.head)))
    lines = [f"| {' | '.join(map(escaped, table.head))} |", f"|{rule}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in table.rows)]) + "\n"


def cell(entry: Entry) -> str:
    """A cell's text and links."""
    text = code(entry.text).replace("|", "\\|") if entry.is_code else escaped(entry.text)
    links = (f"[{escaped(link.text)}]({link.address})" for link in entry.links)
    return " ".join(part for part in (text, *links) if part)


def code(text: str) -> str:
    """Between as many backticks as it takes. A `|` within is the caller's, since it means something in tables alone."""
    line = " ".join(text.split())
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def escaped(text: str) -> str:
    """On one line, every sign with a backslash that would mean something."""
    return SIGNS.sub(lambda sign: f"\\{sign[0]}", " ".join(text.split()))
