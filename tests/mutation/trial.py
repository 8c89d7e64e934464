"""One change tried: put into a copy of the project, its tests run by a process that has the libraries loaded."""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .changes import Change
from .covering import FOLDERS, Covering, read
from .in_memory import Trials

COPIED = ("libcore", "models", "experiments", "conf", "tests", "pyproject.toml")
LOADED = ("torch", "torchvision", "torch.fx", "torch.export", "sklearn.decomposition", "scipy.optimize", "igraph")
LOADED += ("safetensors.torch", "hypothesis", "beartype", "jaxtyping")
LOADED += ("hydra", "omegaconf", "pydantic")
AT_FIRST = 8
"""Quick tests, which notice most changes, before all others."""
OPTIONS = ("-x", "-q", "-n0", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
BYTES = 8 << 30
KILLED, TIMED_OUT, SURVIVED, NOT_COVERED, TO_IMPORT = "killed", "timed out", "survived", "not covered", "to import"


class Workshop:
    """A copy of the project in a folder of its own, and a process that forks for every trial."""

    def __init__(self, repository: Path, folder: Path, covering: Covering, seconds: float) -> None:
        self.folder, self.covering, self.seconds = folder, covering, seconds
        for name in COPIED:
            source = repository / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copy2(source, folder / name)
        # The parity tests look for the published artefacts beside the checkout.
        if (shared := repository.parent / "shared").is_dir() and not (beside := folder.parent / "shared").exists():
            beside.symlink_to(shared)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        for name in LOADED:
            importlib.import_module(name)

    def outcomes(self, changes: Sequence[Change], told: Callable[[Change, str], None]) -> None:
        """Try all of them. Raises RuntimeError where tests that the coverage names are not there."""
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(here)
            self.try_in_memory(changes, there)
        os.close(there)
        to_import: list[Change] = []
        with os.fdopen(here, encoding="utf-8") as lines:
            for line, change in zip(lines, changes, strict=False):
                if (outcome := line.strip()) == TO_IMPORT:
                    to_import.append(change)
                else:
                    told(change, outcome)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise RuntimeError("tests cannot be collected, or are others than those that were measured")
        for change in to_import:
            told(change, self.imported(change))

    def try_in_memory(self, changes: Sequence[Change], pipe: int) -> None:
        """In a child, which does not return: collect once, and write an outcome a line."""

        def tell(_: Change, outcome: str | None) -> None:
            os.write(pipe, f"{outcome or TO_IMPORT}\n".encode())

        def outcome_of(change: Change, exchange: Callable[[], None], run: Callable[[Sequence[str]], int]) -> str:
            def changed(tests: Sequence[str]) -> int:
                exchange()
                return run(tests)

            return self.outcome(change, changed)

        measured = sorted(self.covering.seconds, key=self.covering.seconds_of)
        passes = (measured, lambda run: status_of_fork(run, 600) == 0)
        trials = Trials(self.folder, changes, outcome_of, tell, passes)
        run_silently(lambda: pytest.main([*OPTIONS, *FOLDERS], [trials]))

    def imported(self, change: Change) -> str:
        """What came of a change that is executed at the import."""
        path = self.folder / change.file
        source, times = path.read_text(encoding="utf-8"), path.stat()
        path.write_text(change.applied(source), encoding="utf-8")
        try:
            sys.dont_write_bytecode = True
            return self.outcome(change, lambda tests: pytest.main([*OPTIONS, *tests]))
        finally:
            path.write_text(source, encoding="utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def outcome(self, change: Change, run: Callable[[Sequence[str]], int]) -> str:
        """Run quick tests, then as many others as fit into the time for one change, until one fails."""
        lines = range(change.line, change.line + change.before.count("\n") + 1)
        tests = self.covering.tests_of(change.file, lines)
        if not tests:
            return NOT_COVERED
        for some in (tests[:AT_FIRST], self.affordable(tests[AT_FIRST:])):
            allowed = 60 + 10 * sum(map(self.covering.seconds_of, some))
            status = status_of_fork(lambda some=some: run(some), allowed) if some else 0
            if status != 0:
                return TIMED_OUT if status is None else KILLED
        return SURVIVED

    def affordable(self, tests: Sequence[str]) -> list[str]:
        """As many of the tests, in their order, as fit into the time for one change."""
        left, chosen = self.seconds, []
        for test in tests:
            left -= self.covering.seconds_of(test)
            if left < 0:
                break
            chosen.append(test)
        return chosen


def status_of_fork(run: Callable[[], int], allowed: float) -> int | None:
    """Exit status of what runs in a child process; None where it took longer than allowed, in seconds."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
        run_silently(run)
    until = time.monotonic() + allowed
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_silently(run: Callable[[], int]) -> None:
    """End this process with the status of what runs; 3 where it raises."""
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    status = 3
    try:
        status = int(run())
    finally:
        os._exit(status)


def tried(work: tuple[Path, list[Change], Path, float]) -> list[tuple[Change, str]]:
    """The outcomes of one process's share."""
    repository, changes, measured, seconds = work
    outcomes: list[tuple[Change, str]] = []
    of_tests = read(measured)
    with tempfile.TemporaryDirectory() as folder:
        (copy := Path(folder) / "project").mkdir()
        workshop = Workshop(repository, copy, of_tests, seconds)

        def told(change: Change, outcome: str) -> None:
            outcomes.append((change, outcome))
            print(f"{outcome:>11}  {change}", flush=True)

        workshop.outcomes(changes, told)
    return outcomes
