"""`python -m experiments.report DIR...`: finished runs side by side, as a table (Markdown, CSV) and figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from experiments.config.run_directory import check_writable
from models.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's."""
    parser = argparse.ArgumentParser(prog="lib-report", description=__doc__)
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a run's directory, or one with runs below it"
    )
    parser.add_argument("--out", type=Path, default=None, help="where to write (default: outputs/reports/<time>)")
    parsed = parser.parse_args(arguments)
    out = parsed.out or Path("outputs") / "reports" / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
    try:
        check_writable(out, "--out")
        write_and_print(parsed.folders, out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def write_and_print(folders: Sequence[Path], out: Path) -> None:
    """Write the report and say in a few lines what is in it and where it is."""
    # What reads graphs imports torch; --help does without.
    from experiments.reporting.report_files import write_report

    report = write_report(folders, out)
    print_tables(report.tables)
    for line in report.unfinished:
        print(line)
    print(f"report: {out / 'report.md'}")


def print_tables(tables: dict[str, list[list[str]]]) -> None:
    """Tables for a terminal."""
    from rich.console import Console
    from rich.table import Table

    # Piped into a file there is no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else 120)
    for title, (head, *rows) in tables.items():
        table = Table(title=title, title_justify="left")
        for index, name in enumerate(head):
            table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
