"""`python -m experiments.import_published CLONE`: results of a clone of the paper's public repository, in our files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.command_end import told_in_one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's."""
    parsed = command_line().parse_args(arguments)
    with told_in_one_line():
        # Reads tensors, and so imports torch; --help does without.
        from experiments.config.own_folder import own_folder
        from experiments.config.run_directory import check_writable
        from experiments.published.clone import import_clone

        check_writable(parsed.out, "--out")
        with own_folder(parsed.out, "--out"):
            for line in import_clone(parsed.clone, parsed.out):
                print(line, flush=True)


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m experiments.import_published", description=__doc__)
    parser.add_argument("clone", metavar="CLONE", type=Path, help="folder with *_rib_graph.pt anywhere below it")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs") / "published",
        help="where to write (default: %(default)s); `pytest --reference=DIR` then repeats the parity tests on it",
    )
    return parser


if __name__ == "__main__":
    main()
