"""`python -m experiments.cache list|verify|prune`: which finished stages are kept, which are whole, which may go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.command_end import OK, told_in_one_line
from models.errors import UserError

DAMAGED = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 1 where something is damaged, 2 for an error of the user's."""
    parsed = command_line().parse_args(arguments)
    with told_in_one_line():
        sys.exit(parsed.carry_out(parsed))


def list_contents(parsed: argparse.Namespace) -> int:
    """A line for each thing in the cache: size, age, and how many finished runs used it."""
    from experiments.pipeline.cache_contents import contents, uses
    from experiments.report import print_tables
    from experiments.reporting.tables import Entry, Table

    cache = cache_of(parsed)
    found, used_by = contents(cache), uses([parsed.output_directory, *parsed.runs], cache)
    rows = tuple(
        (Entry(kept.name), Entry(kept.kind), Entry(size(kept.n_bytes)), Entry(age(kept.days)), used(kept, used_by))
        for kept in found
    )
    if rows:
        print_tables({str(cache): Table(str(cache), ("entry", "kind", "size", "age", "used by"), rows, n_left=2)})
    for kept in found:
        if kept.format:
            print(f"{kept.name}: {kept.format}")
    print(f"{len(found)} entries, {size(sum(kept.n_bytes for kept in found))}")
    return OK


def used(kept: Any, used_by: dict[str, list[Path]]) -> Any:
    """`run 20261127-… and 2 more`."""
    from experiments.reporting.tables import Entry

    runs = used_by.get(kept.name, [])
    others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return Entry(f"{runs[0].name}{others}" if runs else "none" if kept.kind in ("stage", "file") else "")


def verify(parsed: argparse.Namespace) -> int:
    """A line for each thing that is not what was written."""
    from experiments.pipeline.cache_contents import contents

    found = [kept for kept in contents(cache_of(parsed)) if kept.kind not in ("foreign", "temporary")]
    damaged = [(kept.name, reason) for kept in found if (reason := kept.damage()) is not None]
    for name, reason in damaged:
        print(f"{name}: {reason}")
    print(f"{len(found) - len(damaged)} whole, {len(damaged)} not; a run computes those again")
    return DAMAGED if damaged else OK


def prune_contents(parsed: argparse.Namespace) -> int:
    """A line for each thing that goes."""
    from experiments.pipeline.cache_contents import contents, uses
    from experiments.pipeline.cache_pruning import GONE, WOULD_GO, prune, to_prune

    if not parsed.unused and parsed.older_than is None:
        raise UserError("prune: expected --unused, --older-than DAYS, or both")
    if parsed.older_than is not None and not 0 <= parsed.older_than < float("inf"):
        raise UserError(f"--older-than={parsed.older_than:g}: expected a number of days, 0 or more")
    cache = cache_of(parsed)
    used_by = uses([parsed.output_directory, *parsed.runs], cache)
    chosen, n_bytes = to_prune(contents(cache), used_by, parsed.unused, parsed.older_than), 0
    for kept in chosen:
        done = prune(kept, cache, parsed.dry_run)
        n_bytes += kept.n_bytes if done in (GONE, WOULD_GO) else 0
        print(f"{kept.name}: {size(kept.n_bytes)}, {age(kept.days)}: {done}")
    print(f"{size(n_bytes)} {'to be removed' if parsed.dry_run else 'removed'}")
    return OK


def cache_of(parsed: argparse.Namespace) -> Path:
    """The cache's folder; raises UserError where there is none."""
    cache = parsed.output_directory / "cache"
    if not cache.is_dir():
        raise UserError(f"--output-directory {parsed.output_directory}: no cache in it; expected one that runs had")
    for folder in parsed.runs:
        if not folder.is_dir():
            raise UserError(f"--runs {folder}: no such folder; expected one with runs below it")
    return cache


def size(n_bytes: int) -> str:
    """`1.2 MB`."""
    for unit in ("B", "KB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000  # pyright: ignore[reportAssignmentType]
    return f"{n_bytes:.3g} GB"


def age(days: float) -> str:
    """`3.5 days`, `20 minutes`."""
    if days >= 1:
        return f"{days:.1f} days"
    minutes = days * 24 * 60
    return f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{minutes:.0f} minutes"


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--output-directory",
        metavar="DIR",
        type=Path,
        default=Path("outputs"),
        help="of the runs whose cache it is (default: %(default)s)",
    )
    common.add_argument(
        "--runs", metavar="DIR", nargs="+", type=Path, default=[], help="further folders with runs that use the cache"
    )
    parser = argparse.ArgumentParser(prog="python -m experiments.cache", description=__doc__)
    commands = parser.add_subparsers(metavar="list|verify|prune", required=True)
    for name, carry_out, about in (
        ("list", list_contents, "size and age of all that is kept, and which finished runs used it"),
        ("verify", verify, "read everything, and name what is not what was written; exit status 1 if anything is"),
        ("prune", prune_contents, "remove what is asked for, but nothing that a run is using, and no foreign file"),
    ):
        command = commands.add_parser(name, parents=[common], help=about, description=about)
        command.set_defaults(carry_out=carry_out)
        if name == "prune":
            command.add_argument("--unused", action="store_true", help="what no finished run that is there has used")
            command.add_argument(
                "--older-than", metavar="DAYS", type=float, default=None, help="by when it was written"
            )
            command.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    return parser


if __name__ == "__main__":
    main()
