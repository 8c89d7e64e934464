"""What of a command line is an option of Hydra's, and what an override."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from models.errors import UserError


def refuse_unknown_options() -> None:
    """Raises UserError in place of the usage that Hydra's parser prints for an option that there is not."""
    if "--resume" in sys.argv or any(argument.startswith("--resume=") for argument in sys.argv):
        return  # is no option of Hydra's
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; expected options before the overrides or behind them, --help lists all")

    parser.error = refuse  # pyright: ignore[reportAttributeAccessIssue]
    parser.parse_args()


def overrides_in(arguments: Sequence[str]) -> list[str]:
    """Arguments that are no option, and no value of one."""
    options = {name: action for action in get_args_parser()._actions for name in action.option_strings}
    found: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        takes_value = before in options and options[before].nargs is None
        if not argument.startswith("-") and not takes_value:
            found.append(argument)
    return found
