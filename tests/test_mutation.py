"""What the mutation run changes, and what it leaves alone."""

from __future__ import annotations

import importlib
import random
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from mutation.changes import changes_of
from mutation.covering import Covering, junit_key
from mutation.in_memory import exchanged, functions_below

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((REPOSITORY / "libcore").rglob("*.py"))
}


def after(source: str) -> set[str]:
    return {change.applied(source) for change in changes_of("m.py", source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a + b\n", {"x = (a - b)\n"}),
        ("x = a @ b\n", {"x = (b @ a)\n"}),
        ("x = a < b\n", {"x = (a <= b)\n"}),
        ("x = a < b == c\n", {"x = (a <= b == c)\n", "x = (a < b != c)\n"}),
        ("x = not a\n", {"x = (a)\n"}),
        ("x = a and b\n", {"x = (a or b)\n"}),
        ("x += a\n", {"x -= a\n"}),
        ("x = 3\n", {"x = 4\n"}),
        ("x = 0.5\n", {"x = 5.0\n"}),
        ("x = True\n", {"x = False\n"}),
        ("x = a[b:]\n", {"x = a[:]\n"}),
        ("x = min(a, b)\n", {"x = (max(a, b))\n"}),
        ("f(x)\n", {"pass\n"}),
        ("def f(x: int = y) -> 3:\n    return x\n", {"def f(x: int = y) -> 3:\n    return None\n"}),
        ("if a:\n    b\n", {"if (not a):\n    b\n"}),
        ("x = a if b else c\n", {"x = a if (not b) else c\n"}),
        ("x = [a for a in b if a]\n", {"x = [a for a in b if (not a)]\n"}),
        ("Δ = 'λ'; x = a * b\n", {"Δ = 'λ'; x = (a / b)\n"}),
    ],
)
def test_each_change_is_made(source, expected):
    assert after(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A text with 3 + 4."""\n',
        "x: Literal[3]\n",
        "@cache(3)\ndef f(): pass\n",
        "raise ValueError(f'{a + 1} of 3')\n",
        "assert a < 3\n",
        "__all__ = [3]\n",
        "x = zip(a, b, strict=True)\n",
        "Number = int | None\n",
        "x = f'{a + 1}'\n",
    ],
)
def test_what_alters_no_result_by_construction_is_left_alone(source):
    assert after(source) == set()


def test_every_change_of_libcore_is_source_that_compiles():
    changes = [change for file, source in SOURCES.items() for change in changes_of(file, source)]
    assert len(changes) > 5000
    for change in random.Random(0).sample(changes, 100):
        compile(change.applied(SOURCES[change.file]), change.file, "exec")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a constant, a wrapped function and one with a default."""
    (tmp_path / "exchanged_module.py").write_text(
        "from functools import wraps\nN = 3\n\n\ndef wrapped(f):\n    @wraps(f)\n    def g(x):\n        return f(x)\n"
        "    return g\n\n\n@wrapped\ndef larger(x):\n    return x + 5\n\n\ndef other(x, y=7):\n    return x * y\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("exchanged_module")


def test_code_of_functions_is_exchanged_and_nothing_else(module, tmp_path):
    source = (tmp_path / "exchanged_module.py").read_text()
    functions = functions_below(tmp_path)
    by_text = {(change.before, change.after): change for change in changes_of("exchanged_module.py", source)}
    found = exchanged(by_text["x + 5", "(x - 5)"], tmp_path, functions)
    assert found is not None
    for function, code in found:
        function.__code__ = code
    assert (module.larger(20), module.other(20)) == (15, 140)
    # What is executed at the import has to be imported.
    assert exchanged(by_text["3", "4"], tmp_path, functions) is None
    assert exchanged(by_text["7", "8"], tmp_path, functions) is None


def test_quick_tests_come_first_from_every_file():
    tests = {"a.py::slow": 3.0, "a.py::quick": 1.0, "b.py::middle": 2.0, "b.py::slowest": 4.0, "c.py::other": 0.1}
    covering = Covering(
        {("m.py", 1): frozenset(tests) - {"c.py::other"}, ("m.py", 2): frozenset({"c.py::other"})}, tests
    )
    assert covering.tests_of("m.py", [1]) == ["a.py::quick", "b.py::middle", "a.py::slow", "b.py::slowest"]
    # A line that is executed at the import alone is what all tests of the module rest on.
    assert covering.tests_of("m.py", [3])[0] == "c.py::other"
    assert len(covering.tests_of("m.py", [3])) == 5
    assert covering.tests_of("other.py", [1]) == []


def test_names_of_tests_in_a_report():
    assert junit_key("tests/a/test_b.py::TestC::test_d[x::y.z]") == ("tests.a.test_b.TestC", "test_d[x::y.z]")


def test_reasons_are_about_what_is_there():
    reasons = tomllib.loads((REPOSITORY / "tests/mutation/equivalent.toml").read_text(encoding="utf-8"))["change"]
    changes = [change for file, source in SOURCES.items() for change in changes_of(file, source)]
    for one in reasons:
        assert set(one) <= {"at", "before", "reason"}
        there = [change for change in changes if fnmatchcase(f"{change.file}:{change.place}", one["at"])]
        assert [change for change in there if change.before == one.get("before", change.before)], one
