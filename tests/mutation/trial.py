"""One change tried: put into a copy of the project, its tests run by a process that has the libraries loaded."""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from .changes import Change
from .covering import Covering

COPIED = ("libcore", "models", "experiments", "conf", "tests", "pyproject.toml")
LOADED = ("torch", "torchvision", "torch.fx", "torch.export", "sklearn.decomposition", "scipy.optimize", "igraph")
LOADED += ("safetensors.torch", "hypothesis", "beartype", "jaxtyping")
LOADED += ("hydra", "omegaconf", "pydantic")
AT_FIRST = 8
"""Quick tests, which notice most changes, before all others."""
OPTIONS = ("-x", "-q", "-n0", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
BYTES = 8 << 30
KILLED, TIMED_OUT, SURVIVED, NOT_COVERED = "killed", "timed out", "survived", "not covered"


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

    def trial(self, change: Change) -> str:
        """What came of it."""
        path = self.folder / change.file
        source, times = path.read_text(encoding="utf-8"), path.stat()
        lines = range(change.line, change.line + change.before.count("\n") + 1)
        tests = self.covering.tests_of(change.file, lines)
        if not tests:
            return NOT_COVERED
        path.write_text(change.applied(source), encoding="utf-8")
        try:
            outcome = self.run(tests[:AT_FIRST])
            if outcome == SURVIVED and (rest := self.affordable(tests[AT_FIRST:])):
                outcome = self.run(rest)
            return outcome
        finally:
            path.write_text(source, encoding="utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def affordable(self, tests: Sequence[str]) -> list[str]:
        """As many of the tests, in their order, as fit into the time for one change."""
        left, chosen = self.seconds, []
        for test in tests:
            left -= self.covering.seconds_of(test)
            if left < 0:
                break
            chosen.append(test)
        return chosen

    def run(self, tests: Sequence[str]) -> str:
        """Run tests until one fails."""
        allowed = 60 + 10 * sum(map(self.covering.seconds_of, tests))
        status = status_of_fork(tests, allowed)
        if status is None:
            return TIMED_OUT
        return SURVIVED if status == 0 else KILLED

    def check(self, tests: Sequence[str]) -> None:
        """Raises RuntimeError unless all of them can be collected and a few pass on the unchanged project."""
        if status_of_fork(["--collect-only", *tests], 600) != 0:
            raise RuntimeError("tests that the coverage names cannot be collected; measure it again")
        if status_of_fork(tests[:AT_FIRST], 600) != 0:
            raise RuntimeError("tests fail on the unchanged project")


def status_of_fork(arguments: Sequence[str], allowed: float) -> int | None:
    """Exit status of pytest in a child process; None where it took longer than allowed, in seconds."""
    child = os.fork()
    if child == 0:
        run_tests(arguments)
    until = time.monotonic() + allowed
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_tests(arguments: Sequence[str]) -> None:
    """In the child; does not return."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    sys.dont_write_bytecode = True
    status = 3
    try:
        status = int(pytest.main([*OPTIONS, *arguments]))
    finally:
        os._exit(status)
