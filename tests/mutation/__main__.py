"""Changes of `libcore`, one at a time: which of a random sample do the tests not notice?

`python -m tests.mutation --seed 0 --n 200`, in the environment of `make test`. Exit status 1 where more than a tenth
survives without a reason in `equivalent.toml`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import tomllib
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path

from . import covering
from .changes import Change, changes_of
from .trial import NOT_COVERED, SURVIVED, tried

REPOSITORY = Path(__file__).resolve().parents[2]
REASONS = Path(__file__).with_name("equivalent.toml")
LARGEST_SHARE = 0.1


def all_changes() -> list[Change]:
    """Of all modules of `libcore`, by file and line."""
    files = sorted((REPOSITORY / "libcore").rglob("*.py"))
    return [
        change
        for path in files
        for change in changes_of(path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8"))
    ]


def reason_for(change: Change, reasons: list[dict[str, str]]) -> str | None:
    """Why a change alters no result; None where nobody has said."""
    for one in reasons:
        if fnmatchcase(f"{change.file}:{change.place}", one["at"]) and change.before == one.get(
            "before", change.before
        ):
            return one["reason"]
    return None


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="which sample is drawn")
    parser.add_argument("--n", type=int, default=200, help="how many changes")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for one change")
    parser.add_argument("--measured", type=Path, help="keep there, and take from there, which test executes which line")
    parser.add_argument("--again", type=Path, help="only what survived, of a file that --out wrote")
    parser.add_argument("--out", type=Path, help="write the outcomes there, as JSON")
    options = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"
    # Shuffled and cut, so that a larger sample has the smaller one in it.
    changes = all_changes()
    random.Random(options.seed).shuffle(changes)
    changes = changes[: options.n]
    if options.again is not None:
        survived = {one["change"] for one in json.loads(options.again.read_text()) if one["outcome"] == SURVIVED}
        changes = [change for change in changes if str(change) in survived]
    with tempfile.TemporaryDirectory() as folder:
        measured = (options.measured or Path(folder)).resolve()
        measured.mkdir(parents=True, exist_ok=True)
        if not (measured / ".coverage").exists():
            covering.measure(REPOSITORY, measured, options.jobs)
        shares = [(REPOSITORY, changes[job :: options.jobs], measured, options.seconds) for job in range(options.jobs)]
        with get_context("spawn").Pool(options.jobs) as pool:
            outcomes = [outcome for share in pool.map(tried, shares, chunksize=1) for outcome in share]
    reasons = tomllib.loads(REASONS.read_text(encoding="utf-8"))["change"]
    survivors = sorted(change for change, outcome in outcomes if outcome in {SURVIVED, NOT_COVERED})
    unexplained = [change for change in survivors if reason_for(change, reasons) is None]
    if options.out is not None:
        found = [{"change": str(change), "outcome": outcome} for change, outcome in sorted(outcomes)]
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    for change in survivors:
        print(f"survived: {change}  [{reason_for(change, reasons) or 'unexplained'}]")
    n, of_them = len(outcomes), len(unexplained)
    print(
        f"{n} changes: {n - len(survivors)} noticed, {len(survivors) - of_them} alter no result, {of_them} not noticed"
    )
    return int(of_them > LARGEST_SHARE * n)


if __name__ == "__main__":
    sys.exit(main())
