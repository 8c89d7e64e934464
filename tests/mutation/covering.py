"""Which tests execute a line, and how long they take: from one run of the suite with coverage by test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from xml.etree import ElementTree

from coverage import CoverageData

FOLDERS = ("tests/libcore", "tests/parity")


@dataclass(frozen=True)
class Covering:
    """What executes what.

    Attributes:
        by_line: the tests, by file and line of `libcore`.
        seconds: of each test.
    """

    by_line: dict[tuple[str, int], frozenset[str]]
    seconds: dict[str, float]

    def tests_of(self, file: str, lines: Iterable[int]) -> list[str]:
        """Tests of these lines, quick ones first, from as many test files as there are before a second of the same.

        What is executed at the import alone (a default, a constant) is tested by all tests of its module.
        """
        found = frozenset[str]().union(*(self.by_line.get((file, line), frozenset()) for line in lines))
        if not found:
            found = frozenset[str]().union(*(tests for (of, _), tests in self.by_line.items() if of == file))
        by_file: dict[str, list[str]] = defaultdict(list)
        for test in sorted(found, key=lambda test: (self.seconds_of(test), test)):
            by_file[test.partition("::")[0]].append(test)
        rounds = zip_longest(*sorted(by_file.values(), key=lambda tests: self.seconds_of(tests[0])))
        return [test for of_round in rounds for test in of_round if test is not None]

    def seconds_of(self, test: str) -> float:
        """As measured; a second where it was not."""
        return self.seconds.get(test, 1.0)


def measure(repository: Path, folder: Path, processes: int) -> None:
    """Run the tests of `libcore` with coverage, and keep in `folder` which test executed what."""
    command = [sys.executable, "-m", "pytest", *FOLDERS, "-q", "-n", str(processes), "-p", "no:cacheprovider"]
    command += ["--cov=libcore", "--cov-context=test", "--cov-report=", f"--junitxml={folder / 'junit.xml'}"]
    environment = {"COVERAGE_FILE": str(folder / ".coverage"), "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=repository, env=os.environ | environment, check=True)


def read(folder: Path) -> Covering:
    """What `measure` left there."""
    data = CoverageData(str(folder / ".coverage"))
    data.read()
    by_line: dict[tuple[str, int], frozenset[str]] = {}
    for path in data.measured_files():
        file = path[path.rindex("/libcore/") + 1 :]
        for line, contexts in data.contexts_by_lineno(path).items():
            tests = frozenset(context.partition("|")[0] for context in contexts if context)
            if tests:
                by_line[file, line] = tests
    seconds = {
        (case.get("classname", ""), case.get("name", "")): float(case.get("time", 0))
        for case in ElementTree.parse(folder / "junit.xml").iter("testcase")
    }
    tests = frozenset[str]().union(*by_line.values())
    return Covering(by_line, {test: seconds[key] for test in tests if (key := junit_key(test)) in seconds})


def junit_key(test: str) -> tuple[str, str]:
    """Class and name of a test as the report of a run writes them."""
    path, *classes, name = test.partition("[")[0].split("::")
    parameters = test[len(test.partition("[")[0]) :]
    return ".".join([path.removesuffix(".py").replace("/", "."), *classes]), name + parameters
