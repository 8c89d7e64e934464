"""What a report consists of: `report.html`, `report.md`, tables as CSV, figures; one section for each setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.evidence.corrections import HOLM, Correction
from experiments.pipeline.json_files import write_text
from experiments.reporting.comparison import to_csv
from experiments.reporting.contents import Report, report_of
from experiments.reporting.evidence_tables import evidence_csv
from experiments.reporting.finished_runs import find_runs
from experiments.reporting.html_report import to_html
from experiments.reporting.latex_report import to_latex
from experiments.reporting.long_table import to_long_csv
from experiments.reporting.markdown_report import to_markdown

HTML, MARKDOWN, LONG_TABLE, LATEX = "report.html", "report.md", "metrics.csv", "report.tex"
EVIDENCE = "evidence.csv"


def write_report(folders: Sequence[Path], out: Path, *, latex: bool = False, correction: Correction = HOLM) -> Report:
    """Collect the runs below `folders` and write the report; where none has finished, nothing is written."""
    finished, unfinished = find_runs(folders)
    report = report_of(finished, unfinished, out, correction)
    if not finished:
        return report
    for section in report.sections:
        write_text(out / f"report{section.stem}.csv", to_csv(section.comparison))
    write_text(out / LONG_TABLE, to_long_csv([model.runs for model in report.models]))
    write_text(out / EVIDENCE, evidence_csv((section.title, section.evidence) for section in report.sections))
    if latex:
        write_text(out / LATEX, to_latex(report))
    write_text(out / HTML, to_html(report, out))
    write_text(out / MARKDOWN, to_markdown(report))
    return report
