"""`python -m experiments.stability RUN RUN...`: which features two or more runs share, and which are chance."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from experiments.command_end import told_in_one_line
from models.errors import UserError

CSV, JSON = "stability.csv", "stability.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's."""
    parsed = command_line().parse_args(arguments)
    out = parsed.out or Path("outputs") / "stability" / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
    with told_in_one_line():
        # What reads graphs imports torch; --help does without.
        from experiments.config.own_folder import own_folder, refuse_foreign_folder
        from experiments.config.run_directory import check_writable
        from experiments.feature_stability.compared_runs import read_runs
        from experiments.feature_stability.output import table_of, to_csv, to_json
        from experiments.feature_stability.pairs import stability_of_pairs
        from experiments.pipeline.json_files import write_json, write_text
        from experiments.report import print_tables

        check_numbers(parsed)
        check_writable(out, "--out")
        refuse_foreign_folder(out, "--out")
        pairs = stability_of_pairs(read_runs(parsed.runs), parsed.examples, parsed.group_width)
        for pair in pairs:
            print_tables({pair.title: table_of(pair)})
            print(pair.sentence)
        with own_folder(out, "--out"):
            write_text(out / CSV, to_csv(pairs))
            write_json(out / JSON, to_json(pairs))
        print(f"table: {out / CSV}")
        print(f"every feature: {out / JSON}")


def check_numbers(parsed: argparse.Namespace) -> None:
    """Raises UserError for what is out of range."""
    if len(parsed.runs) < 2:
        raise UserError("a single run; expected two or more, to be compared")
    if parsed.examples < 2:
        raise UserError(f"--examples={parsed.examples}: expected 2 or more")
    if not 0 <= parsed.group_width < 1:
        raise UserError(f"--group-width={parsed.group_width}: expected a share from 0 to below 1")


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.stability",
        description=__doc__,
        epilog="Features are compared by the correlation of their values, which their scale does not change: in closed "
        "form where runs are of the same weights (halves of the data, dtypes, methods), else on the same inputs.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="directory of a finished run; every two are compared"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help=f"where to write {CSV} and {JSON} (default: outputs/stability/<time>)"
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=1000,
        help="inputs that models of different weights are compared on, the first of the first run's training split "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--group-width",
        type=float,
        default=0.1,
        help="features are a group whose importances lie at most so far below that of its first, as a share of it "
        "(default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    main()
