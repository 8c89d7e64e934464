"""Changes within functions, tried in a process that has collected all tests: the code of a function is exchanged.

Nothing is imported again, which takes longer than most tests. What is executed at the import (constants, defaults,
classes' attributes) cannot be tried so.
"""

from __future__ import annotations

import gc
import os
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from .changes import Change

Functions = dict[tuple[str, str], list[types.FunctionType]]
"""Those that are there, by file and qualified name."""

UNCHANGED = 20
"""Quick tests that have to pass before anything is changed."""


class Trials:
    """A pytest plugin that runs trials instead of all tests once.

    Attributes:
        changes: what is tried.
        outcome_of: carries out one trial: what prepares the child, and what runs there.
        told: takes each change with its outcome, None where it has to be imported.
        measured: all tests that a trial may ask for, quick ones first.
        passes: whether what it is given, run in a child, passes.
    """

    def __init__(
        self,
        folder: Path,
        changes: Sequence[Change],
        outcome_of: Callable[[Change, Callable[[], None], Callable[[Sequence[str]], int]], str],
        told: Callable[[Change, str | None], None],
        passes: tuple[Sequence[str], Callable[[Callable[[], int]], bool]],
    ) -> None:
        self.folder, self.changes, self.outcome_of, self.told = folder, changes, outcome_of, told
        self.measured, self.passes = passes
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that failed, in its set-up or its end, too."""
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All trials. Raises UsageError where measured tests are not there, or quick ones fail without any change."""
        items = {item.nodeid: item for item in session.items}
        functions = functions_below(self.folder / "libcore")
        gc.freeze()

        def run(tests: Sequence[str]) -> int:
            chosen = [items[test] for test in tests]
            for item, following in zip(chosen, [*chosen[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    return 1
            return 0

        if set(self.measured) - set(items):
            raise pytest.UsageError("other tests than were measured")
        if not self.passes(lambda: run(self.measured[:UNCHANGED])):
            raise pytest.UsageError("tests fail without a change")
        for change in self.changes:
            exchanges = exchanged(change, self.folder, functions)
            if exchanges is None:
                self.told(change, None)
                continue

            def exchange(exchanges: list[tuple[types.FunctionType, types.CodeType]] = exchanges) -> None:
                for function, code in exchanges:
                    function.__code__ = code

            self.told(change, self.outcome_of(change, exchange, run))
        return True


def functions_below(folder: Path) -> Functions:
    """All functions of the modules there, with those that decorators wrapped."""
    found: Functions = defaultdict(list)
    for one in gc.get_objects():
        if type(one) is types.FunctionType and one.__code__.co_filename.startswith(str(folder) + os.sep):
            found[one.__code__.co_filename, one.__code__.co_qualname].append(one)
    return found


def exchanged(
    change: Change, folder: Path, functions: Functions
) -> list[tuple[types.FunctionType, types.CodeType]] | None:
    """Functions and their code with the change; None where it is not in the code of functions alone."""
    path = str(folder / change.file)
    source = Path(path).read_text(encoding="utf-8")
    # Flags of the original's `from __future__` lines come with the source.
    before, after = (compile(text, path, "exec", dont_inherit=True) for text in (source, change.applied(source)))
    exchanges: list[tuple[types.FunctionType, types.CodeType]] = []
    for old, new in differing(before, after):
        if old is None or new is None:
            return None
        there = [function for function in functions[path, old.co_qualname] if is_same(function.__code__, old)]
        if not there or old.co_freevars != new.co_freevars:
            return None
        exchanges += [(function, new) for function in there]
    return exchanges or None


def differing(
    before: types.CodeType, after: types.CodeType
) -> Iterator[tuple[types.CodeType | None, types.CodeType | None]]:
    """Outermost functions that differ; None for the code of a module or of a class around them."""
    old, new = ([c for c in code.co_consts if isinstance(c, types.CodeType)] for code in (before, after))
    if len(old) != len(new) or not is_same(before, after, with_inner=False):
        yield None, None
        return
    for one, other in zip(old, new, strict=True):
        is_function = bool(one.co_flags & 0x2)  # CO_NEWLOCALS
        if not is_function:
            yield from differing(one, other)
        elif not is_same(one, other):
            yield one, other


def is_same(one: types.CodeType, other: types.CodeType, *, with_inner: bool = True) -> bool:
    """Whether both do the same, wherever their lines are."""
    if (one.co_code, one.co_names, one.co_varnames) != (other.co_code, other.co_names, other.co_varnames):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    for first, second in zip(one.co_consts, other.co_consts, strict=True):
        if isinstance(first, types.CodeType) and isinstance(second, types.CodeType):
            if with_inner and not is_same(first, second):
                return False
        elif (type(first), repr(first)) != (type(second), repr(second)):
            return False
    return True
