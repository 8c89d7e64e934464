"""`python -m experiments.reproduce`: every figure and table of the paper that is not done yet, and a page of verdicts.

Each experiment `conf/experiment/paper_*.yaml` is a sweep by the ordinary command; one that was interrupted is resumed,
one that has finished is not run again. What needs data that were not given is named, and the others go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.command_end import FAILED, OK, told_in_one_line
from experiments.reproduction.claims import Claims, Input, read_claims
from experiments.reproduction.inputs import OPTIONS, missing_inputs, overrides_of
from models.errors import UserError
from models.whole_files import foreign_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's, 1 where a run failed."""
    parsed = command_line().parse_args(arguments)
    with told_in_one_line("the same command goes on from here"):
        sys.exit(reproduce(parsed))


def reproduce(options: argparse.Namespace) -> int:
    """Carry out what is not done yet, and write the page. The exit status; raises UserError."""
    claims = read_claims()
    given: dict[Input, str] = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    asked_for = chosen(options.only, claims)
    check_overrides(options.overrides)
    # Reads runs, and so imports torch; --help does without.
    from experiments.config.run_directory import check_writable
    from experiments.pipeline.json_files import write_text
    from experiments.reproduction.document import Shown, document, report_folder
    from experiments.reproduction.pictures import copy_figures

    check_writable(options.out.parent, "--out")
    foreign_files.set(frozenset(foreign_beside(options.out)))
    status, shown = OK, {}
    for name, experiment in claims.experiments.items():
        is_to_run = name in asked_for and not options.no_runs
        ended, paper_runs = experiment_of(name, experiment.needs, given, options, is_to_run)
        status = max(status, ended)
        print(f"{name}: {f'{len(paper_runs.runs)} runs' if paper_runs.runs else paper_runs.reason}", flush=True)
        folder, figures = report_folder(paper_runs), {}
        if folder is not None:
            beside = options.out.parent / PICTURES
            files = copy_figures(folder, experiment.figures, name, beside)
            figures = {figure: f"{PICTURES}/{file}" for figure, file in files.items()}
        shown[name] = Shown(paper_runs, figures)
    write_text(options.out, document(claims, shown, options.overrides))
    print(f"page: {options.out}")
    return status


PICTURES = "reproduction"
"""Folder beside the page."""


def foreign_beside(page: Path) -> list[Path]:
    """Pictures beside the page that it does not show; raises UserError for something else in the page's place."""
    from experiments.reproduction.document import HEADING

    text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    if page.exists() and not text.startswith(f"{HEADING}\n"):
        raise UserError(f"--out {page}: not written by this command; expected another file, or none")
    pictures = page.parent / PICTURES
    if pictures.is_symlink():
        raise UserError(f"--out {page}: {PICTURES} beside it leads elsewhere; expected a folder, or none")
    return [path.absolute() for path in pictures.glob("*") if f"{PICTURES}/{path.name}" not in text]


def experiment_of(
    name: str, needs: Sequence[Input], given: Mapping[Input, str], options: argparse.Namespace, is_to_run: bool
):
    """One experiment's runs, carried out first where they are asked for and not done: the exit status, and the runs."""
    from experiments.reproduction.sweeps import PaperRuns, arguments_of, carry_out, find_sweep, read_sweep

    outputs = Path(options.output_directory)
    unknown = missing_inputs(needs, given, options.overrides)
    arguments = arguments_of(name, [*options.overrides, *overrides_of(needs, given)], options.output_directory)
    record = find_sweep(arguments, unknown, outputs)
    found = read_sweep(record)
    if not found.runs and unknown and record is None:
        wanted = " and ".join(f"{OPTIONS[option].what} (--{option})" for option in unknown)
        return OK, PaperRuns(reason=f"not given: {wanted}")
    if found.is_done or not is_to_run:
        return OK, found
    ended, reason = carry_out(arguments, record)
    found = read_sweep(find_sweep(arguments, unknown, outputs))
    if not found.runs and reason:
        found = PaperRuns(found.record, reason=reason)
    return (OK if found.runs else ended or FAILED), found


def chosen(only: Sequence[str], claims: Claims) -> list[str]:
    """Experiments to run, all by default; raises UserError for a name that is none."""
    from libcore.names import nearest

    for name in only:
        if name not in claims.experiments:
            raise UserError(
                f"--only {name}: no such experiment of the paper{nearest(name, claims.experiments)}; expected one of "
                f"{', '.join(claims.experiments)}"
            )
    return list(only or claims.experiments)


def check_overrides(overrides: Sequence[str]) -> None:
    """Raises UserError for what is no override, or one that the command sets itself."""
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise UserError(f"{override}: expected KEY=VALUE, or an option beginning with --")
        if key in ("experiment", "output_directory"):
            option = "--only" if key == "experiment" else "--output-directory"
            raise UserError(f"{override}: the experiments' own; expected {option}")


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduce", description=__doc__)
    add = parser.add_argument
    add("overrides", metavar="KEY=VALUE", nargs="*", help="given to every experiment, as to experiments.run")
    add(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help="run this experiment alone; may be given several times",
    )
    add("--no-runs", action="store_true", help="write the page from what has finished")
    for name, option in OPTIONS.items():
        add(f"--{name}", metavar="PATH", help=f"{option.what}; what needs it is left out without")
    add("--output-directory", metavar="DIR", default="outputs", help="of runs and their cache (default: %(default)s)")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        default=Path("docs") / "REPRODUCTION.md",
        help="the page (default: %(default)s), with its figures in reproduction/ beside it",
    )
    return parser


if __name__ == "__main__":
    main()
