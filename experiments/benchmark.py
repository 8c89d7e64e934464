"""`python -m experiments.benchmark stages`: every stage against the straightforward way and the machine's limit.

`python -m experiments.benchmark costs`: operations, memory and disk as formulas of the shapes, against CPU seconds.

`python -m experiments.benchmark KEY=VALUE...`: closed form against differentiation and probes, section by section.
Takes the overrides of `experiments.run`. For every layer pair: seconds for the Jacobian Gram by the closed form and by
differentiation on the same examples, how many times faster the one is, and how far the two are apart. Beside them the
seconds that `analysis.probes` take, their error, and what they say of it themselves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from experiments.command_end import told_in_one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with told_in_one_line():
        match given:
            case ["stages", *rest]:
                time_stages(rest)
            case ["costs", *rest]:
                tell_costs(rest)
            case _:
                time_estimators(given)


def tell_costs(arguments: Sequence[str]) -> None:
    """`costs ...`."""
    from experiments.benchmarks.costs import main as main_of_costs

    main_of_costs(arguments)


def time_stages(arguments: Sequence[str]) -> None:
    """`stages ...`; raises UserError."""
    from experiments.benchmarks.command import main as main_of_stages

    main_of_stages(arguments)


def time_estimators(arguments: Sequence[str]) -> None:
    """`KEY=VALUE...`; raises UserError."""
    parser = argparse.ArgumentParser(
        prog="lib-benchmark",
        description="Times closed forms against differentiation and probes.",
        epilog="lib-benchmark stages: every stage against the straightforward way and the machine's limit; "
        "lib-benchmark stages --help; lib-benchmark costs: what stages take, as formulas of the shapes",
    )
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as for experiments.run")
    parser.add_argument("--layer", action="append", help="time this node layer only; may be given several times")
    parsed = parser.parse_args(arguments)
    from experiments.pipeline.estimator_timings import compare_estimators

    compare_estimators(parsed.overrides, parsed.layer)


if __name__ == "__main__":
    main()
