"""`python -m experiments.report DIR...`: finished runs side by side, as a page, tables (Markdown, CSV) and figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.command_end import told_in_one_line
from experiments.start_up import collect_garbage_rarely, process_of
from models.errors import UserError

MOST_KEY_COLUMNS = 3
"""Of a table in a terminal."""
SETTING = "setting"
"""Head of the one column in place of more."""
UNBROKEN = (SETTING, "node layer")
"""Heads of columns whose names keep to one line."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's."""
    collect_garbage_rarely()
    parsed = command_line().parse_args(arguments)
    out = parsed.out or Path("outputs") / "reports" / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
    with told_in_one_line():
        # What knows methods or reads graphs imports torch; --help does without.
        from experiments.config.own_folder import own_folder
        from experiments.config.run_directory import check_writable
        from experiments.reporting.finished_runs import check_folders
        from experiments.reporting.report_files import write_report

        check_writable(out, "--out")
        check_folders(parsed.folders)
        with own_folder(out, "--out"):
            report = write_report(parsed.folders, out, latex=parsed.latex, correction=parsed.correction)
        if not report.models:
            raise UserError(f"no finished run to report on: {'; '.join(report.unfinished)}")
        print_report(report, out)
        if parsed.wandb:
            from experiments.reporting.report_tracking import log_report

            if (folder := log_report(report, out, parsed.wandb_project)) is not None:
                print(f"W&B: {folder}")


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="lib-report", description=__doc__)
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a run's directory, or one with runs below it"
    )
    parser.add_argument("--out", type=Path, default=None, help="where to write (default: outputs/reports/<time>)")
    parser.add_argument(
        "--latex", action="store_true", help="write report.tex too: tables with booktabs, to be \\input into a paper"
    )
    parser.add_argument(
        "--correction",
        choices=("holm", "benjamini-hochberg"),
        default="holm",
        help="of the p of many layers: holm bounds the chance of any false claim, the other their share",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="log the comparison as one W&B run with tables, in the mode of WANDB_MODE, else offline below --out",
    )
    parser.add_argument(
        "--wandb-project", metavar="NAME", default=None, help="of --wandb (default: WANDB_PROJECT, else the runs' own)"
    )
    return parser


def write_and_print(folders: Sequence[Path], out: Path) -> None:
    """Write the report on what there is of a sweep's runs, and say in a few lines what is in it and where it is."""
    from experiments.config.own_folder import own_folder
    from experiments.reporting.report_files import write_report

    with own_folder(out, "", of_a_sweep=True):
        report = write_report(folders, out)
    print_report(report, out)


def print_report(report: Any, out: Path) -> None:
    """Short tables, a line for every run without results, and where the report is: none where no run has finished."""
    for model in report.models:
        print_tables(model.short_tables())
    for line in report.unfinished:
        print(line)
    if report.models:
        print(f"page: {out / 'report.html'}")
        print(f"report: {out / 'report.md'}")


def print_tables(tables: Mapping[str, Any]) -> None:
    """Tables for a terminal, by title."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Piped into a file there is no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else 120)
    for title, content in tables.items():
        table, (head, *rows) = Table(title=escape(title), title_justify="left"), narrow(content)
        n_left = len(head) - len(content.head) + content.n_left
        for index, name in enumerate(head):
            justify = "left" if index < n_left else "right"
            table.add_column(escape(name), justify=justify, overflow="fold", no_wrap=name in UNBROKEN)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)


def narrow(table: Any) -> list[list[str]]:
    """Head and rows as texts; columns of configuration keys take little width, and above three share one."""
    texts, n_keys = table.texts(), table.n_left - 1
    if n_keys <= MOST_KEY_COLUMNS:
        head = [name.replace(".", ".\n") if index < n_keys else name for index, name in enumerate(texts[0])]
        return [head, *texts[1:]]
    keys = [key.rpartition(".")[2] for key in texts[0][:n_keys]]
    lines = ("\n".join(f"{key}={value}" for key, value in zip(keys, row, strict=False)) for row in texts[1:])
    return [[SETTING, *texts[0][n_keys:]], *([line, *row[n_keys:]] for line, row in zip(lines, texts[1:], strict=True))]


def command() -> None:
    """`main` as all that the process is for."""
    process_of(main)


if __name__ == "__main__":
    command()
