"""`python -m experiments.benchmark KEY=VALUE...`: closed form against differentiation and probes, section by section.

Takes the overrides of `experiments.run`. For every layer pair: seconds for the Jacobian Gram by the closed form and by
differentiation on the same examples, how many times faster the one is, and how far the two are apart. Beside them the
seconds that `analysis.probes` take, their error, and what they say of it themselves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from models.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="lib-benchmark", description="Times closed forms against differentiation and probes."
    )
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as for experiments.run")
    parser.add_argument("--layer", action="append", help="time this node layer only; may be given several times")
    parsed = parser.parse_args(arguments)
    from experiments.pipeline.estimator_timings import compare_estimators

    try:
        compare_estimators(parsed.overrides, parsed.layer)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
