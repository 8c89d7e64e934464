"""How a command ends: one line for what the user can mend, and an exit status that says which kind of end it was."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager

from experiments.interruptions import end_in_order, exit_status_of, reason_of
from models.errors import UserError

OK, FAILED, USER_ERROR = 0, 1, 2


@contextmanager
def told_in_one_line(on_interruption: str = "nothing half-written is left") -> Generator[None, None, None]:
    """Status 2 for the user's errors and what the machine refuses, 1 for a defect, 128 and its number for a signal."""
    end_in_order()
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt as interruption:
        print(f"{reason_of(interruption)}: {on_interruption}", file=sys.stderr)
        sys.exit(exit_status_of(interruption))
    except BrokenPipeError:
        sys.exit(nobody_reads())
    except Exception as error:
        from experiments.causes import user_cause  # imports torch

        if (cause := user_cause(error)) is not None:
            print(f"error: {cause}", file=sys.stderr)
            sys.exit(USER_ERROR)
        traceback.print_exc()
        print(f"this is a bug: {type(error).__name__}; the lines above say where", file=sys.stderr)
        sys.exit(FAILED)


def nobody_reads() -> int:
    """Whoever read the output has had enough; what is left of it goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK
